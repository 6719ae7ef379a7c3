"""Weights: cards, presets, download, bundles, and what their licenses allow."""
