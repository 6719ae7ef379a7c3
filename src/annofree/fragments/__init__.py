"""Pieces of an image, before they have names."""
