"""Frozen backbones: what they see, as feature maps."""
