"""Values of annotations, checked where they are read: finite numbers, sizes, boxes whose corners are in order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from annofree.errors import InputError
from annofree.formats.passed_over import PassedOver, Place

__all__ = ["MOST_PIXELS", "order_box", "read_numbers", "read_size"]

Box = tuple[float, float, float, float]

MOST_PIXELS = 1 << 29
"""The largest image that annotations may claim, 23,170 x 23,170, for masks of that size are allocated."""

_FARTHEST = 1e9  # px, from which on coordinates are no place near an image


def read_numbers(values: Iterable[Any], what: str) -> list[float]:
    """Return finite numbers; raises ValueError for anything else, text that is none, NaN, and infinity.

    >>> read_numbers(["1", 2.5], "a box")
    [1.0, 2.5]
    """
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"expected finite numbers as {what}, got {_short(values)}") from None
    if not all(abs(number) < _FARTHEST for number in numbers):  # NaN is not either
        raise ValueError(f"expected finite numbers as {what}, got {_short(values)}")
    return numbers


def _short(values: object) -> str:
    return f"{values!r:.60}"


def read_size(height: Any, width: Any, where: str) -> tuple[int, int]:
    """Return a size (H, W) that an annotation file claims; raises InputError for one below 1 x 1 or over ``MOST_PIXELS``.

    >>> read_size("30", 40.0, "a.xml")
    (30, 40)
    """
    try:
        sides = [float(side) for side in (height, width) if not isinstance(side, bool)]
        sound = len(sides) == 2 and all(side >= 1 and side == int(side) for side in sides)
    except (TypeError, ValueError, OverflowError):
        sound = False
    if not sound:
        raise InputError(f"expected a width and a height of at least one pixel in {where}, got {width!r:.30} x {height!r:.30}")
    if sides[0] * sides[1] > MOST_PIXELS:
        raise InputError(
            f"expected an image of at most {MOST_PIXELS:,} pixels in {where}, got {width!r:.30} x {height!r:.30}; "
            "correct the size"
        )
    return int(sides[0]), int(sides[1])


def order_box(corners: Iterable[Any], passed: PassedOver, place: Place) -> Box:
    """Return a box x0 y0 x1 y1 of two corners in order, and say so where they were swapped; raises ValueError as above.

    >>> order_box([15, 13, 5, 5], PassedOver(), ("a.xml", "object 1"))
    (5.0, 5.0, 15.0, 13.0)
    """
    numbers = read_numbers(corners, "a box")
    if len(numbers) != 4:
        raise ValueError(f"expected four numbers as a box, got {_short(numbers)}")
    x0, y0, x1, y1 = numbers
    if x1 < x0 or y1 < y0:
        passed.fix(*place, "corners of a box in the wrong order, put in order")
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
