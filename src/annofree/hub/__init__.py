"""Weights: cards, presets, download, bundles, and what their licences allow."""
