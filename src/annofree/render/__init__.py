"""Visualization: overlays, contact sheets, HTML pages, charts."""
