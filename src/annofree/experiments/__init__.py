"""Recipes with expected numbers: measure, compare, reproduce."""
