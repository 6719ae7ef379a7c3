"""Reading JSON that this program wrote, and that anybody may have damaged since."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.io.files.checksums import take_checksum

__all__ = ["read_json_object", "read_own_json"]


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a file that is one JSON object; raises OSError, or ValueError for anything else in it."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(held, dict):
        raise ValueError(f"expected a JSON object in it, got {type(held).__name__}")
    return held


def read_own_json(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """Read such a file, and check and leave out its checksum.

    Raises InputError that names ``what`` was expected, the file, what is wrong with it, and a ``remedy``.

    >>> read_own_json(Path("none.json"), "the list of parts", "make it again")
    Traceback (most recent call last):
    annofree.errors.InputError: expected the list of parts in none.json, but it cannot be read: No such file or directory; ...
    """
    try:
        return take_checksum(read_json_object(path))
    except OSError as problem:
        raise InputError(f"expected {what} in {path}, but it cannot be read: {problem.strerror}; {remedy}") from None
    except ValueError as problem:
        raise InputError(f"expected {what} in {path}, but it is damaged: {problem}; {remedy}") from None
