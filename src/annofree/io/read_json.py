"""Reading JSON that this program wrote, and that anybody may have damaged since."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.io.files.checksums import take_checksum
from annofree.io.regular import require_regular

__all__ = ["parse_json", "read_json_object", "read_model_config", "read_own_json"]


def parse_json(text: str, *keys: str) -> Any:
    """Parse JSON; raises ValueError also where an object has one of ``keys`` twice, for all but the last would be lost.

    >>> parse_json('{"shapes": [1], "shapes": [2]}', "shapes")
    Traceback (most recent call last):
    ValueError: "shapes" is there twice in one object
    """
    several = {key for key in keys if text.count(f'"{key}"') > 1}
    return json.loads(text, object_pairs_hook=partial(_refuse_doubled, several) if several else None)


def _refuse_doubled(keys: Collection[str], pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) < len(pairs):
        given = [key for key, _ in pairs]
        for key in keys:
            if given.count(key) > 1:
                raise ValueError(f'"{key}" is there twice in one object')
    return held


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a file that is one JSON object; raises OSError, or ValueError for anything else in it."""
    try:
        held = json.loads(require_regular(path).read_text(encoding="utf-8"))
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


def read_model_config(path: Path) -> dict[str, Any]:
    """Read the JSON that a folder of a model has beside its weights; raises InputError when it is not one."""
    try:
        return read_json_object(path)
    except (OSError, ValueError) as problem:
        raise InputError(f"expected JSON in {path}, but it cannot be read: {problem}; fetch the model again") from None
