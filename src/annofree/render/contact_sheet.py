"""A sheet of small images with a line under each, for people to look at before they trust a folder of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import PIL.Image
from PIL import ImageDraw

from annofree.errors import InputError
from annofree.ops.palette import Color
from annofree.render.lettering import Font, load_font, strip_accents
from annofree.structures import Image

__all__ = ["Thumbnail", "draw_contact_sheet"]

_PAPER, _INK, _FRAME, _EMPTY = (255, 255, 255), (20, 20, 20), (170, 170, 170), (236, 236, 236)
_FONT = 14  # px
_GAP = 10  # px
_LONGEST = 200  # characters


@dataclass(frozen=True)
class Thumbnail:
    """An image, None for one that cannot be read, and the line under it."""

    image: Image | None
    caption: str


def draw_contact_sheet(
    title: str, thumbnails: Sequence[Thumbnail], *, columns: int = 6, side: int = 160, color: Color | None = None
) -> PIL.Image.Image:
    """Lay images out in rows, each whole within a square of ``side`` px, under a title, with a spot of ``color`` before it.

    An image that cannot be read is a crossed square.  Text that does not fit is cut short.  The same input gives the same
    deterministic.  Raises InputError for less than one column, and for squares too small for a line of text.

    >>> draw_contact_sheet("dog", [Thumbnail(None, "0.31")] * 7).size
    (1030, 432)
    """
    if columns < 1 or side < 4 * _FONT:
        raise InputError(f"expected at least one column of at least {4 * _FONT} px, got {columns} of {side} px")
    font, heading = load_font(_FONT), load_font(_FONT + 4)
    cell = side + _GAP, side + 2 * _FONT
    rows, top = math.ceil(len(thumbnails) / columns), 4 * _FONT
    sheet = PIL.Image.new("RGB", (columns * cell[0] + _GAP, top + rows * cell[1]), _PAPER)
    draw = ImageDraw.Draw(sheet)
    left = _GAP if color is None else 2 * _GAP + _FONT
    if color is not None:
        draw.ellipse((_GAP, (top - _FONT) // 2, _GAP + _FONT, (top + _FONT) // 2), fill=color, outline=_FRAME)
    draw.text((left, top // 2), _cut(title, sheet.width - left - _GAP, heading), fill=_INK, font=heading, anchor="lm")
    for i, thumbnail in enumerate(thumbnails):
        x, y = _GAP + i % columns * cell[0], top + i // columns * cell[1]
        _draw_image(sheet, draw, thumbnail.image, (x, y, x + side - 1, y + side - 1))
        draw.text((x, y + side + _FONT), _cut(thumbnail.caption, side, font), fill=_INK, font=font, anchor="lm")
    return sheet


def _draw_image(
    sheet: PIL.Image.Image, draw: ImageDraw.ImageDraw, image: Image | None, square: tuple[int, int, int, int]
) -> None:
    x0, y0, x1, y1 = square
    draw.rectangle(square, fill=_EMPTY)
    if image is None:
        draw.rectangle(square, outline=_FRAME)
        draw.line((x0, y0, x1, y1), fill=_FRAME)
        draw.line((x0, y1, x1, y0), fill=_FRAME)
        return
    side, (height, width) = x1 - x0 + 1, image.size
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = PIL.Image.fromarray(image.pixels).resize(size, PIL.Image.Resampling.BICUBIC, reducing_gap=3.0)
    sheet.paste(small, (x0 + (side - size[0]) // 2, y0 + (side - size[1]) // 2))


def _cut(text: str, width: int, font: Font) -> str:
    text = strip_accents(" ".join(text.split())[:_LONGEST])
    if font.getlength(text) <= width:
        return text
    keep = next((n for n in range(len(text), 0, -1) if font.getlength(text[:n] + "…") <= width), 0)
    return text[:keep] + "…"
