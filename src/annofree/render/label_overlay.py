"""An image with its label map laid over it and, beside or below it, a legend of names and shares."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL import ImageDraw

from annofree.errors import InputError
from annofree.formats.label_maps import VOID_COLOR, assign_label_colors
from annofree.ops.palette import Color
from annofree.render.lettering import load_font, shorten_name
from annofree.structures import VOID, Image, LabelMap

__all__ = ["draw_label_map"]

IntArray = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]

_TINT, _LINE = round(0.5 * 255), 240  # how much of a region and of its edge is its color
_PALE = 0.5  # how much of the image's own color a region loses
_SHORTEST = 512  # px; smaller images are enlarged, for no font is legible beside them
_PAPER, _INK, _FRAME = (255, 255, 255), (20, 20, 20), (120, 120, 120)
_VOID_TEXT = "(void)"


@dataclass(frozen=True)
class _Line:
    color: Color | None
    text: str
    share: str


def draw_label_map(image: Image, label_map: LabelMap, limit: int = 30) -> PIL.Image.Image:
    """Lay a label map over its image, with a legend of the names that it has, the largest share first.

    Colors are those of the label map's file; edges are white between the colors of both sides, so they are visible on any
    ground.  The background is left as it is in the image but for a black line, and void is hatched.  The legend stands to
    the right of a tall image and below a wide one, in as many columns as it needs to be no longer than the image, and ends
    with the classes beyond ``limit``.  An image whose long side is under 512 px is enlarged by a whole factor first.  The same
    input gives the same output.

    Raises InputError when the label map is of another size than the image.

    >>> image = Image(np.zeros((100, 50, 3), np.uint8))
    >>> draw_label_map(image, LabelMap(np.zeros((100, 50), np.int32), ("dog",))).size[1]
    600
    """
    if image.size != label_map.size:
        raise InputError(f"expected a label map of an image of size {image.size}, got one of size {label_map.size}")
    factor = max(1, math.ceil(_SHORTEST / max(image.size)))
    picture = _tinted(image, label_map, factor)
    lines = _lines(label_map, limit)
    font_size = max(13, min(max(picture.size) // 48, min(picture.size) // 6))
    below = picture.width >= picture.height
    legend = _legend(lines, font_size, picture.size, below)
    size = (picture.width, picture.height + legend.height) if below else (picture.width + legend.width, picture.height)
    sheet = PIL.Image.new("RGB", (max(size[0], legend.width), max(size[1], legend.height)), _PAPER)
    sheet.paste(picture, (0, 0))
    sheet.paste(legend, (0, picture.height) if below else (picture.width, 0))
    return sheet


def _tinted(image: Image, label_map: LabelMap, factor: int) -> PIL.Image.Image:
    """The image, enlarged, with each region in its color, and its edges in white and that color."""
    size = (image.size[1] * factor, image.size[0] * factor)
    picture = PIL.Image.fromarray(image.pixels).resize(size, PIL.Image.Resampling.BICUBIC)
    labels = label_map.labels.repeat(factor, axis=0).repeat(factor, axis=1)
    width = max(1, round(max(size) / 900))
    hatch = np.add.outer(np.arange(size[1]), np.arange(size[0])) // 6 % 2 == 0
    bare = ((labels == VOID) & hatch) | (labels == (VOID - 1 if label_map.background is None else label_map.background))
    pale = PIL.Image.blend(picture, picture.convert("L").convert("RGB"), _PALE)
    picture.paste(pale, mask=PIL.Image.fromarray(~bare))
    strength = np.where(bare, 0, _TINT).astype(np.uint8)
    strength[_edges(labels, 3 * width)] = _LINE
    strength[(labels == VOID) & hatch] = 0
    rim = _edges(labels, width)
    strength[rim] = _LINE
    colors = np.vstack([assign_label_colors(label_map.names, label_map.background), VOID_COLOR]).astype(np.uint8)
    paint = colors[labels]  # void, -1, finds the last color
    paint[rim] = _PAPER
    return PIL.Image.composite(PIL.Image.fromarray(paint), picture, PIL.Image.fromarray(strength))


def _edges(labels: IntArray, width: int) -> BoolArray:
    """Pixels of which one of the 4 neighbors, up to ``width`` px away, has another label."""
    edge = np.zeros(labels.shape, bool)
    for step in range(1, width + 1):
        across, down = labels[:, step:] != labels[:, :-step], labels[step:] != labels[:-step]
        edge[:, step:] |= across
        edge[:, :-step] |= across
        edge[step:] |= down
        edge[:-step] |= down
    return edge


def _lines(label_map: LabelMap, limit: int) -> list[_Line]:
    colors = assign_label_colors(label_map.names, label_map.background).tolist()
    shares = label_map.compute_shares()
    place = {name: k for k, name in enumerate(label_map.names)}
    order = sorted(shares, key=lambda name: (place[name] == label_map.background, -shares[name]))
    lines = []
    for name in order[:limit]:
        own = None if place[name] == label_map.background else tuple(colors[place[name]])
        lines.append(_Line(own, shorten_name(name), _percent(shares[name])))
    if len(order) > limit:
        lines.append(_Line(None, f"{len(order) - limit} more", _percent(sum(shares[n] for n in order[limit:]))))
    void = float((label_map.labels == VOID).mean())
    return [*lines, _Line(VOID_COLOR, _VOID_TEXT, _percent(void))] if void else lines


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "< 0.1 %"


def _legend(lines: list[_Line], font_size: int, image: tuple[int, int], below: bool) -> PIL.Image.Image:
    """Draw the lines in as many columns as fit below an image of a size (width, height), or as few as fit beside it."""
    font, row, pad = load_font(font_size), round(1.6 * font_size), font_size // 2
    widest = [
        max(math.ceil(font.getlength(text)) for text in column)
        for column in ([x.text for x in lines], [x.share for x in lines])
    ]
    column = font_size + widest[0] + widest[1] + 5 * pad
    if below:
        columns = max(1, min(len(lines), image[0] // column))
    else:
        columns = math.ceil(len(lines) / max(1, (image[1] - 2 * pad) // row))
    rows = math.ceil(len(lines) / columns)
    sheet = PIL.Image.new("RGB", (columns * column, rows * row + 2 * pad), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        x, y = i // rows * column + pad, i % rows * row + pad + row // 2
        half = font_size // 2
        draw.rectangle((x, y - half, x + font_size, y + half), fill=line.color, outline=_FRAME)
        draw.text((x + font_size + pad, y), line.text, fill=_INK, font=font, anchor="lm")
        draw.text((x + font_size + 2 * pad + widest[0] + widest[1], y), line.share, fill=_INK, font=font, anchor="rm")
    return sheet
