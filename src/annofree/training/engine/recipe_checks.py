"""What the recipes of trainings share: their fields, with paths that count from the file, and numbers in range."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.io.settings_file import check_names, check_values, read_toml

__all__ = ["check_above_zero", "check_shares", "check_types", "read_fields"]


def read_fields(path: Path, kind: type, paths: Iterable[str]) -> dict[str, Any]:
    """Read the fields of a recipe, a dataclass ``kind``, from TOML; texts of the fields ``paths`` count from the file.

    Raises InputError when it is not there, not TOML, or has a field that there is not, with the nearest names.
    """
    data = read_toml(path, "a recipe")
    check_names(f"field of the recipe {path.name}", data, [f.name for f in fields(kind)])
    placed = {name: path.parent / data[name] for name in paths if isinstance(data.get(name), str)}
    return data | placed


def check_types(recipe: Any) -> None:
    """Refuse values of another type than the field has, and negative and endless numbers, in a recipe, a dataclass."""
    check_values(type(recipe), vars(recipe))
    for name, value in vars(recipe).items():
        if isinstance(value, (int, float)) and not value >= 0:
            raise InputError(f"expected {name} from 0, got {value}")
        if value == math.inf:
            raise InputError(f"expected {name} as a finite number, got {value}")


def check_above_zero(recipe: Any, names: Iterable[str]) -> None:
    """Refuse fields of a recipe that are 0."""
    for name in names:
        if getattr(recipe, name) <= 0:
            raise InputError(f"expected {name} above 0, got {getattr(recipe, name)}")


def check_shares(recipe: Any, names: Iterable[str]) -> None:
    """Refuse fields of a recipe, numbers from 0, that are above 1."""
    for name in names:
        if getattr(recipe, name) > 1:
            raise InputError(f"expected {name} from 0 to 1, got {getattr(recipe, name)}")
