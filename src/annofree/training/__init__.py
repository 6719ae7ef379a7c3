"""Training what is ours: the bundled tiny models first."""
