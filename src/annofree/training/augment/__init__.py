"""Scenes made of objects, and how images are changed."""
