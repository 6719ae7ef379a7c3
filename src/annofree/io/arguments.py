"""What a call is given: numbers in a range, and one value or several."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from annofree.errors import InputError

__all__ = ["as_list", "check_range"]


_MOST = 2**31 - 1  # of anything that is counted


def as_list(given: str | Path | Iterable[str | Path]) -> list[str | Path]:
    """Return what may be one text or path, or several, as a list: a text is not taken letter by letter.

    >>> as_list("tiny"), as_list(("tiny", "fast"))
    (['tiny'], ['tiny', 'fast'])
    """
    return [given] if isinstance(given, str | Path) else list(given)


def check_range(name: str, value: float | None, least: float, most: float | None = None) -> None:
    """Refuse a number outside of a range; None, which stands for what is left out, is none.  Without ``most`` it is a count.

    >>> check_range("limit", None, 1)
    >>> check_range("limit", 0, 1)
    Traceback (most recent call last):
    annofree.errors.InputError: expected limit of at least 1, got 0
    >>> check_range("held_out", 2, 0, 1)
    Traceback (most recent call last):
    annofree.errors.InputError: expected held_out from 0 to 1, got 2
    """
    is_number = isinstance(value, int if most is None else int | float) and not isinstance(value, bool)
    if value is None or (is_number and least <= value <= (_MOST if most is None else most)):
        return
    wanted = f"from {least} to {most}"
    if most is None:
        wanted = f"of at most {_MOST:,}" if is_number and value > _MOST else f"of at least {least}"
        wanted = wanted if is_number else f"as a whole number {wanted}"
    raise InputError(f"expected {name} {wanted}, got {value!r:.60}")
