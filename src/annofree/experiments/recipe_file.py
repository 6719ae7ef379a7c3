"""The file of a recipe, of whatever kind: TOML that is opened once, and errors that name it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from annofree.errors import InputError
from annofree.io.regular import require_regular
from annofree.io.settings_file import check_type

__all__ = ["explain_recipe_errors", "read_fields", "read_tables"]


def read_fields(path: Path, what: str = "a recipe") -> dict[str, Any]:
    """Return the fields of a recipe; raises InputError for a file that is not there or not TOML."""
    try:
        with explain_recipe_errors(path, what):
            return tomllib.loads(require_regular(path).read_text(encoding="utf-8"))
    except OSError as problem:
        raise InputError(f"expected a recipe at {path}, but it cannot be read: {problem.strerror}") from None


@contextmanager
def explain_recipe_errors(path: Path, what: str = "a recipe") -> Iterator[None]:
    """Name the file in the InputError for what makes no recipe of it."""
    try:
        yield
    except ValueError as problem:  # not UTF-8, not TOML and wrong fields are all one
        raise InputError(f"expected {what} in {path}, but it is not one: {problem}") from None


def read_tables(given: Any, name: str) -> Sequence[Mapping[str, Any]]:
    """Return what a recipe has as [[name]]; raises InputError for anything but tables."""
    check_type(name, given, Sequence[Mapping[str, Any]])
    return cast(Sequence[Mapping[str, Any]], given)
