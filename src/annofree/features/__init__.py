"""Frozen backbones and their feature maps."""
