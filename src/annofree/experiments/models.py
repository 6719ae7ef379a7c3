"""Recipes of the bundled models: how each was made, and what it is expected to reach on held-out scenes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annofree.errors import build_unknown_error
from annofree.experiments.recipe_file import explain_recipe_errors, read_fields
from annofree.hub.cards import find_bundled
from annofree.io.settings_file import check_fields
from annofree.training.tiny.evaluate import EXAMS

__all__ = ["ModelRecipe"]

_WHAT = "the recipe of a model"


@dataclass(frozen=True)
class ModelRecipe:
    """How a bundled model was made and what it is expected to reach when it is evaluated."""

    # what it is, in a line
    title: str
    # the world of the images: emoji
    world: str
    # the supervision of all that went into it, and what that is
    tier: str
    # what it was trained and evaluated on
    hardware: str
    # that its training took
    minutes: float
    # the command that makes it again
    command: str
    # the name of the bundled model
    model: str
    # how far a figure may be from what is expected, in its unit
    tolerance: float
    # figures, by name, in percent
    expected: Mapping[str, float]

    @classmethod
    def read(cls, path: Path) -> ModelRecipe:
        """Read a recipe; raises InputError when it is not there, not TOML, or has other fields than a model's recipe has."""
        return cls.of(read_fields(path, _WHAT), path)

    @classmethod
    def of(cls, held: dict[str, Any], path: Path) -> ModelRecipe:
        """Make a recipe of the fields that its file holds; raises InputError for other fields than a model's recipe has."""
        with explain_recipe_errors(path, _WHAT):
            check_fields(cls, held, "the recipe")
            return cls(**held)

    def measure(self, font: Path | None = None) -> dict[str, float]:
        """Examine the bundled model; raises InputError for a model without an exam."""
        if self.model not in EXAMS:
            raise build_unknown_error("bundled model", self.model, EXAMS)
        return EXAMS[self.model](find_bundled(self.model), font)
