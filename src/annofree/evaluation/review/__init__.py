"""Review: which images to check first."""
