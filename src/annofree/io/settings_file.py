"""Settings that a person wrote: TOML that can be read, names that there are, values of the type that a field has.

The fields of a dataclass say what there may be; what TOML writes as a list may be a tuple there, a text may be a path, and a
whole number a number.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from annofree.errors import InputError, build_unknown_error
from annofree.io.regular import require_regular

__all__ = ["check_fields", "check_names", "check_type", "check_values", "read_toml"]

_WORDS: Mapping[Any, tuple[str, str]] = {
    bool: ("true or false", "truth values"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
    Path: ("a path", "paths"),
    NoneType: ("nothing", "nothing"),
}
"""A type in words, one of it and many."""


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a file of settings; ``what`` it should be is told in the InputError for one that is not there or not TOML."""
    try:
        return tomllib.loads(require_regular(path).read_text(encoding="utf-8"))
    except OSError as problem:
        raise InputError(f"expected {what} at {path}, but it cannot be read: {problem.strerror}") from None
    except ValueError as problem:  # not UTF-8 and not TOML are both one
        raise InputError(f"expected TOML in {what} at {path}: {problem}") from None


def check_fields(kind: type, given: Mapping[str, Any], what: str, beside: Collection[str] = ()) -> None:
    """Refuse what does not make a dataclass ``kind``: a field that it has not, one that lacks, a value of another type.

    ``what`` names the whole in the InputError; fields ``beside`` are the caller's to check.
    """
    known = [f.name for f in fields(kind)]
    check_names(f"field of {what}", given, known)
    lacking = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING and f.name not in given]
    if lacking:
        raise InputError(f"expected {', '.join(lacking)} in {what}, got none")
    check_values(kind, {name: value for name, value in given.items() if name not in beside}, what)


def check_values(kind: type, given: Mapping[str, Any], what: str = "") -> None:
    """Refuse values of another type than the field of that name in a dataclass ``kind`` has."""
    hints = get_type_hints(kind)
    for name, value in given.items():
        if name in hints:
            check_type(name, value, hints[name], what)


def check_names(kind: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a name that is not known; the InputError has the nearest that are."""
    known = list(known)
    for name in given:
        if name not in known:
            raise build_unknown_error(kind, name, known)


def check_type(name: str, value: Any, hint: Any, what: str = "") -> None:
    """Refuse a value of another type than ``hint``, in words.

    >>> check_type("side", 800, int)
    >>> check_type("anchors", 32, tuple[int, ...], "[network]")
    Traceback (most recent call last):
    annofree.errors.InputError: expected anchors of [network] as a list of whole numbers, got 32
    """
    if not _fits(value, hint):
        raise InputError(f"expected {name}{f' of {what}' if what else ''} as {_in_words(hint)}, got {value!r}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is what TOML can write of a type; what has no rule here is not refused here."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if kind is Literal:
        return any(type(value) is type(word) and value == word for word in parts)
    if kind in (tuple, list, Sequence):
        return isinstance(value, (list, tuple)) and _all_fit(value, kind, parts)
    if kind in (dict, Mapping):
        return isinstance(value, Mapping) and all(_fits(held, parts[1]) for held in value.values())
    if is_dataclass(hint):
        return isinstance(value, (Mapping, hint))  # type: ignore[arg-type]
    if isinstance(value, bool):
        return hint in (bool, Any) or hint not in _WORDS
    if isinstance(value, float) and math.isnan(value):
        return hint not in _WORDS
    allowed: Any = {float: (int, float), Path: (str, Path)}.get(hint, hint)
    return hint not in _WORDS or isinstance(value, allowed)


def _all_fit(values: Sequence[Any], kind: Any, parts: tuple[Any, ...]) -> bool:
    if kind is tuple and parts[1:] != (...,):
        return len(values) == len(parts) and all(map(_fits, values, parts))
    return all(_fits(value, parts[0]) for value in values)


def _in_words(hint: Any) -> str:
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return " or ".join(_in_words(part) for part in parts if part is not NoneType)
    if kind is Literal:
        return " or ".join(map(repr, parts))
    if kind in (tuple, list, Sequence):
        count = "" if kind is not tuple or parts[1:] == (...,) else f"{len(parts)} "
        return f"a list of {count}{_many(parts[0])}"
    if kind in (dict, Mapping) or is_dataclass(hint):
        return "a table"
    return _WORDS[hint][0] if hint in _WORDS else str(hint)


def _many(hint: Any) -> str:
    return "tables" if get_origin(hint) in (dict, Mapping) else _WORDS.get(hint, ("", "values"))[1]
