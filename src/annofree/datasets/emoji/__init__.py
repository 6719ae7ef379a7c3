"""The emoji world: synthetic scenes with exact ground truth."""
