"""From what a run found to labels."""
