"""Class-agnostic fragments of an image."""
