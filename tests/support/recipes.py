"""The head of a recipe, which has to say a lot before its runs come."""

from __future__ import annotations

import json

__all__ = ["recipe_head"]

_PLAIN: dict[str, str | float] = {
    "title": "A recipe",
    "world": "paper",
    "tier": "S0",
    "hardware": "one core",
    "minutes": 1,
    "tolerance": 0.5,
    "truth": "truth.json",
    "images": "photos",
    "models": "tiny",
    "group_by": "shape",
}


def recipe_head(**changes: str | float) -> str:
    """Return the TOML of a recipe up to its runs.

    >>> print(recipe_head(title="Mine")[:30])
    title = "Mine"
    world = "paper"
    """
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in (_PLAIN | changes).items())
