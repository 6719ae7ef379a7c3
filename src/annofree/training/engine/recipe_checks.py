"""What the recipes of trainings share: TOML that can be read, names that there are, values of the type that a field has."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from annofree.errors import InputError, unknown_name

__all__ = ["check_above_zero", "check_names", "check_types", "read_fields"]

_TYPES: Mapping[str, tuple[str, Any]] = {
    "int": ("a whole number", int),
    "float": ("a number", (int, float)),
    "bool": ("true or false", bool),
    "str": ("a text", str),
    "Mapping[str, Any]": ("a table", Mapping),
}


def read_fields(path: Path, kind: type, paths: Iterable[str]) -> dict[str, Any]:
    """Read the fields of a recipe, a dataclass ``kind``, from TOML; texts of the fields ``paths`` count from the file.

    Raises InputError when it is not there, not TOML, or has a field that there is not, with the nearest names.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise InputError(f"expected a recipe at {path}, but it cannot be read: {problem.strerror}") from None
    except ValueError as problem:  # not UTF-8 and not TOML are both one
        raise InputError(f"expected TOML in the recipe {path}: {problem}") from None
    check_names(f"field of the recipe {path.name}", data, [f.name for f in fields(kind)])
    placed = {name: path.parent / data[name] for name in paths if isinstance(data.get(name), str)}
    return data | placed


def check_names(kind: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a name that is not known; the error has the nearest that are."""
    known = list(known)
    for name in given:
        if name not in known:
            raise unknown_name(kind, name, known)


def check_types(recipe: Any) -> None:
    """Refuse values that TOML gave another type than the field has, and negative numbers, in a recipe, a dataclass."""
    for f in fields(recipe):
        _check_type(f.name, getattr(recipe, f.name), str(f.type))


def _check_type(name: str, value: Any, annotation: str) -> None:
    """Whole numbers are numbers, truth values are not."""
    if annotation not in _TYPES:
        return
    what, types = _TYPES[annotation]
    if not isinstance(value, types) or (isinstance(value, bool) and annotation != "bool"):
        raise InputError(f"expected {name} as {what}, got {value!r}")
    if annotation in ("int", "float") and not value >= 0:
        raise InputError(f"expected {name} from 0, got {value}")


def check_above_zero(recipe: Any, names: Iterable[str]) -> None:
    """Refuse fields of a recipe that are 0."""
    for name in names:
        if getattr(recipe, name) <= 0:
            raise InputError(f"expected {name} above 0, got {getattr(recipe, name)}")
