"""Whose rules: the papers' protocols."""
