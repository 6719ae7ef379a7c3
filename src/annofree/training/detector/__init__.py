"""A detector from pseudo-labels or few labels."""
