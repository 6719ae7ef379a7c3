"""Mask decoders of promptable segmenters, read from the inside."""
