"""annofree."""
