"""Suspicions of where a class is."""
