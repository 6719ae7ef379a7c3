"""Shipped with the library so that others can check it, and themselves against it."""
