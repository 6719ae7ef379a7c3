"""Recipes of the repository, by their kind."""

from __future__ import annotations

import tomllib
from pathlib import Path

__all__ = ["is_published"]


def is_published(path: Path) -> bool:
    """Tell whether a recipe is that of a paper, which it names."""
    return "paper" in tomllib.loads(path.read_text(encoding="utf-8"))
