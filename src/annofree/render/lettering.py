"""Letters on images, in the one font that is everywhere: the one that Pillow brings."""

from __future__ import annotations

import math
import unicodedata
from functools import lru_cache

from PIL import ImageFont

__all__ = ["Font", "compute_padding", "load_font", "measure_plate", "shorten_name", "strip_accents"]

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_LONGEST_NAME = 28  # characters
_NOBODY = "\U0010ffff"  # a code without a sign, which every font shows as one that it lacks


@lru_cache(maxsize=32)
def load_font(size: int) -> Font:
    """Return the font at ``size`` px."""
    return ImageFont.load_default(size)


def shorten_name(name: str, longest: int = _LONGEST_NAME) -> str:
    """Truncate a name to one line of at most ``longest`` characters, ending in "…"; see ``strip_accents``.

    >>> shorten_name("a  café at the end of the road", 12)
    'a cafe at t…'
    """
    name = " ".join(name.split())
    return strip_accents(name if len(name) <= longest else name[: longest - 1] + "…")


def strip_accents(text: str) -> str:
    """Return text without accents that the font lacks; other missing glyphs are shown as boxes.

    >>> strip_accents("jalapeño, 橙子")
    'jalapeno, 橙子'
    """
    return "".join(c if c.isascii() else _plain(c) for c in text)


@lru_cache(maxsize=4096)
def _plain(sign: str) -> str:
    letters = "".join(c for c in unicodedata.normalize("NFKD", sign) if not unicodedata.combining(c))
    return letters if _lacks(sign) and not any(map(_lacks, letters)) else sign


def _lacks(sign: str) -> bool:
    font = load_font(16)
    shown, nobody = font.getmask(sign), font.getmask(_NOBODY)
    return shown.size == nobody.size and bytes(shown) == bytes(nobody)


def measure_plate(text: str, font: Font, size: int) -> tuple[int, int]:
    """Return the width and height in px of the plate behind one line of text of ``size`` px."""
    pad = compute_padding(size)
    return math.ceil(font.getlength(text)) + 2 * pad, size + 2 * pad


def compute_padding(size: int) -> int:
    """Return the padding of a plate around text of ``size`` px."""
    return max(2, size // 4)
