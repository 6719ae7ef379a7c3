"""Verbs that train: detectors, ZUTIS, SelfMask, the tiny models, and what a recipe makes before it measures."""
