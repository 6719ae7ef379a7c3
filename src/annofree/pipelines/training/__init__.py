"""Verbs that train: detectors, ZUTIS, NamedMask, SelfMask, the tiny models, and what a recipe makes before it measures."""
