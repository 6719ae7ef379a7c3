"""In words, how what is asked for now is other than what was asked for before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any

__all__ = ["find_first_change", "list_differences"]


def list_differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Say in words where two values as JSON holds them differ.

    >>> list(list_differences({"a": {"b": 1}}, {"a": {"b": 2}}))
    ['a.b was 1, now it is 2']
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from list_differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{name} was {before!r}, now it is {now!r}"


def find_first_change(before: Iterable[str], now: Iterable[str]) -> str | None:
    """Say in words which id is the first that is another one, counted from 1; None where all are the same.

    >>> find_first_change(["a.jpg", "b.jpg"], ["a.jpg"])
    'number 2, b.jpg is gone'
    """
    for number, (old, new) in enumerate(zip_longest(before, now), start=1):
        if old != new:
            change = f"{new} is new" if old is None else f"{old} is gone" if new is None else f"{old} is now {new}"
            return f"number {number}, {change}"
    return None
