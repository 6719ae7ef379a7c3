"""Benchmark datasets of the papers."""
