"""A colour for each class name, the same in every picture, run and list of names.

The colour is a function of the name alone, so that it does not change when other names are asked.  The price is that two
names may share one; names are always written beside colours.
"""

from __future__ import annotations

import hashlib

__all__ = ["PALETTE", "class_colour", "hexadecimal"]

Colour = tuple[int, int, int]

PALETTE: tuple[Colour, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
    (110, 60, 130),
)
"""Okabe and Ito's colours that are told apart with any kind of colour vision, their black replaced by a dark violet."""


def class_colour(name: str) -> Colour:
    """Return the colour of a class, RGB uint8; case and blanks do not matter.

    >>> class_colour("Traffic  light") == class_colour("traffic light")
    True
    """
    words = " ".join(name.casefold().split())
    number = int.from_bytes(hashlib.sha256(words.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return PALETTE[number % len(PALETTE)]


def hexadecimal(colour: Colour) -> str:
    """Return a colour as CSS has it.

    >>> hexadecimal((0, 158, 115))
    '#009e73'
    """
    return "#{:02x}{:02x}{:02x}".format(*colour)
