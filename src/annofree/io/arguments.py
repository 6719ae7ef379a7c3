"""What a call is given: numbers in a range, and one value or several."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from annofree.errors import InputError

__all__ = ["as_list", "check_range"]


def as_list(given: str | Path | Iterable[str | Path]) -> list[str | Path]:
    """Return what may be one text or path, or several, as a list: a text is not taken letter by letter.

    >>> as_list("tiny"), as_list(("tiny", "fast"))
    (['tiny'], ['tiny', 'fast'])
    """
    return [given] if isinstance(given, str | Path) else list(given)


def check_range(name: str, value: float | None, least: float, most: float | None = None) -> None:
    """Refuse a number outside of a range; None, which stands for what is left out, is none.

    >>> check_range("limit", None, 1)
    >>> check_range("limit", 0, 1)
    Traceback (most recent call last):
    annofree.errors.InputError: expected limit of at least 1, got 0
    >>> check_range("held_out", 2, 0, 1)
    Traceback (most recent call last):
    annofree.errors.InputError: expected held_out from 0 to 1, got 2
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or (is_number and value >= least and (most is None or value <= most)):
        return
    wanted = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise InputError(f"expected {name} {wanted}, got {value!r}")
