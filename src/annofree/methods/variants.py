"""The settings of a method, which are given themselves or by the name of a variant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from annofree.errors import build_unknown_error

__all__ = ["choose_settings"]

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
