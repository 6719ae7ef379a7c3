"""Who does the work of a run: this process, or workers on many machines."""
