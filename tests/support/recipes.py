"""The head of a recipe, which has to say a lot before its runs come."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["recipe_head", "reproduced"]

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


def reproduced(cli: Callable[..., Any], recipe: str, folder: Path, *more: str) -> dict[str, Any]:
    """Run a recipe on one image a group, with its results in ``out`` of a folder, and return its figures by run."""
    (folder / "recipe.toml").write_text(recipe, encoding="utf-8")
    said = cli("reproduce", folder / "recipe.toml", "--out", folder / "out", "--limit", "1", *more)
    assert said.code == 0, said.err
    figures: dict[str, Any] = json.loads((folder / "out" / "figures.json").read_text(encoding="utf-8"))["figures"]
    return figures
