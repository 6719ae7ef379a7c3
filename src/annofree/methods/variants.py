"""The settings of a method: given themselves, or by the name of a variant, or as that with changes by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from annofree.errors import build_unknown_error
from annofree.io.settings_file import check_type

__all__ = ["change_settings", "choose_settings"]

S = TypeVar("S")


def choose_settings(method: str, settings: S | str, variants: Mapping[str, S]) -> S:
    """Return the settings; raises InputError for a variant that the method has not.

    >>> choose_settings("zip", "paper", {"paper": 1}), choose_settings("zip", 2, {"paper": 1})
    (1, 2)
    """
    if not isinstance(settings, str):
        return settings
    if settings not in variants:
        raise build_unknown_error(f"variant of {method}", settings, variants)
    return variants[settings]


def change_settings(settings: Any, changes: Mapping[str, Any]) -> Any:
    """Replace fields of a settings dataclass, and of settings within it, by name.

    A list, as TOML has it, is a tuple where the setting is one.  Raises InputError for a name that is no setting, for a value
    of another type than the setting has, and for one that is none of the words which the setting may be.
    """
    known, hints = {f.name for f in fields(settings)}, get_type_hints(type(settings))
    for name, value in changes.items():
        if name not in known:
            raise build_unknown_error("setting", name, known)
        words = _words(hints[name])
        if words and isinstance(value, str) and value not in words:
            raise build_unknown_error(f"value of {name}", value, words)
        check_type(name, value, hints[name], "the settings")
    nested = {k: change_settings(getattr(settings, k), v) for k, v in changes.items() if isinstance(v, Mapping)}
    listed = {k: tuple(v) for k, v in changes.items() if isinstance(v, list) and _may_be_tuple(hints[k])}
    return replace(settings, **{**changes, **nested, **listed})


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _may_be_tuple(hint: Any) -> bool:
    """Whether what TOML writes as a list is a tuple in a setting."""
    return any(get_origin(option) is tuple for option in _options(hint))


def _words(hint: Any) -> tuple[str, ...]:
    """The words that a setting may be, none where it may be any text."""
    options = _options(hint)
    if str in options:
        return ()
    return tuple(word for option in options if get_origin(option) is Literal for word in get_args(option))
