"""Above each field of settings stands a comment: what it means, its unit, and where its number is from.

Settings are frozen dataclasses of src/annofree whose name says so (``_NAMED``), or whose fields all have defaults, so that
somebody may leave them alone and change one.  What is neither made by hand nor read from a file is none, whatever its
defaults: the few such classes stand in ``_RESULTS``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "annofree"

_NAMED = (
    *("Settings", "Config", "Recipe", "Rules", "Policy", "Protocol", "Making", "Preset", "Card"),
    *("Budget", "Callbacks", "Calibration", "ByClass", "Stairs", "Warmed", "Tuned"),
    *("Run", "PublishedRun"),  # tables of recipes
)
"""Ends of the names of settings; an underscore before them does not matter."""
_RESULTS = {"Agreement", "ColorChange", "DistributedContext", "Scale", "Seen", "Prediction", "StoredRun", "Timings"}
"""Results and values that are named alike, or begin with nothing."""


class Settings(NamedTuple):
    """A class, and its fields without a comment of their own directly above."""

    place: str
    name: str
    bare: list[str]


def is_frozen_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in (text := ast.unparse(d)) and "frozen=True" in text for d in node.decorator_list)


def is_settings(node: ast.ClassDef, fields: list[ast.AnnAssign]) -> bool:
    name = node.name.lstrip("_")
    return name not in _RESULTS and bool(fields) and (name.endswith(_NAMED) or all(f.value is not None for f in fields))


def all_settings() -> Iterator[Settings]:
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.ClassDef) or not is_frozen_dataclass(node):
                continue
            fields = [f for f in node.body if isinstance(f, ast.AnnAssign)]
            if is_settings(node, fields):
                bare = [ast.unparse(f.target) for f in fields if not lines[f.lineno - 2].lstrip().startswith("# ")]
                yield Settings(path.relative_to(SOURCE).as_posix(), node.name, bare)


ALL = list(all_settings())


def test_settings_are_found() -> None:
    names = {s.name for s in ALL}
    assert {
        "DetectorConfig",
        "DetectorRecipe",
        "LabelRules",
        "OutputPolicy",
        "ZipSettings",
        "TrainConfig",
        "TrainCallbacks",
    } <= names


@pytest.mark.parametrize("settings", ALL, ids=lambda s: f"{s.place}:{s.name}")
def test_each_field_has_a_comment_above_it(settings: Settings) -> None:
    assert not settings.bare, f"write above each field what it means, its unit and its origin: {', '.join(settings.bare)}"
