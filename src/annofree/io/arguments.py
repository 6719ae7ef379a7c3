"""Numbers that a call is given."""

from __future__ import annotations

from annofree.errors import InputError

__all__ = ["check_range"]


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
