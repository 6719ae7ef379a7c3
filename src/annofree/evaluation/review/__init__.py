"""Which images to check first."""
