"""One training loop: state, data, checkpoints, schedules, curves."""
