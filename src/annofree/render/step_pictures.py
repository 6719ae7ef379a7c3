"""What a method sees on its way, drawn over the image: heat, pieces, edges and boxes.

Cells are drawn as large as they are, without smoothing, so that a picture shows what the method had.  An image whose long side
is under 512 px is enlarged by a whole factor first, one over 1600 px is made smaller.  H W pixels, h w cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL import ImageDraw

from annofree.ops.palette import Color, make_palette
from annofree.structures import Image

__all__ = ["draw_boxes", "draw_edges", "draw_heat", "draw_pieces", "prepare_canvas"]

RGB = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]

_SHORTEST, _LONGEST = 512, 1600  # px of the long side
_SCALE = np.array([(12, 7, 40), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float64)  # from 0 to 1
_LEAST, _MOST = 0.45, 0.85  # how much of the image a heat of 0 and of 1 hides
_TINT = 0.62  # how much of it a piece hides


def prepare_canvas(image: Image) -> PIL.Image.Image:
    """Enlarge a small image by a whole factor, and make one smaller whose long side is over 1600 px.

    >>> [prepare_canvas(Image(np.zeros((side, 2 * side, 3), np.uint8))).size for side in (100, 400, 1600)]
    [(600, 300), (800, 400), (1600, 800)]
    """
    if max(image.size) > _LONGEST:
        small = PIL.Image.fromarray(image.pixels)
        small.thumbnail((_LONGEST, _LONGEST), reducing_gap=3.0)
        return small
    factor = max(1, math.ceil(_SHORTEST / max(image.size)))
    height, width = image.size
    return PIL.Image.fromarray(image.pixels).resize((width * factor, height * factor), PIL.Image.Resampling.BICUBIC)


def draw_heat(image: Image, values: FloatArray) -> PIL.Image.Image:
    """Lay values (h, w) in 0 .. 1 over the gray image, from dark violet through red to light yellow.

    >>> draw_heat(Image(np.zeros((8, 8, 3), np.uint8)), np.array([[0.0, 1.0]])).getpixel((511, 0))
    (214, 217, 139)
    """
    gray = np.asarray(prepare_canvas(image).convert("L"), np.float64)[..., None]
    heat = _spread(np.clip(np.nan_to_num(values.astype(np.float64)), 0, 1), gray.shape[:2])
    colors = np.stack([np.interp(heat, np.linspace(0, 1, len(_SCALE)), channel) for channel in _SCALE.T], -1)
    hides = (_LEAST + (_MOST - _LEAST) * heat)[..., None]
    return PIL.Image.fromarray(np.rint(gray * (1 - hides) + colors * hides).astype(np.uint8))


def draw_pieces(image: Image, labels: IntArray, colors: Sequence[Color] | None = None) -> PIL.Image.Image:
    """Tint the pieces 1 .. N of a map (h, w), each in its color, over the gray image, with white edges; 0 stays gray.

    >>> draw_pieces(Image(np.zeros((8, 8, 3), np.uint8)), np.array([[0, 1]])).getpixel((300, 9))
    (0, 71, 110)
    """
    gray = np.asarray(prepare_canvas(image).convert("L").convert("RGB"), np.float64)
    drawn = _spread(labels, gray.shape[:2])
    palette = np.array([(0, 0, 0), *(make_palette(int(labels.max(initial=0))) if colors is None else colors)], np.float64)
    hides = np.where(drawn > 0, _TINT, 0.0)[..., None]
    pixels = gray * (1 - hides) + palette[drawn] * hides
    pixels[_mark_edges(drawn, 1)] = 255
    return PIL.Image.fromarray(np.rint(pixels).astype(np.uint8))


def draw_edges(image: Image, labels: IntArray, color: Color = (255, 225, 60)) -> PIL.Image.Image:
    """Draw where the pieces of a map (h, w) meet over the image, its colors paled."""
    large = prepare_canvas(image)
    pixels = np.array(PIL.Image.blend(large, large.convert("L").convert("RGB"), 0.7))
    drawn = _spread(labels, pixels.shape[:2])
    pixels[_mark_edges(drawn, 3)] = 0
    pixels[_mark_edges(drawn, 1)] = color
    return PIL.Image.fromarray(pixels)


def draw_boxes(image: Image, boxes: FloatArray, colors: Sequence[Color]) -> PIL.Image.Image:
    """Draw boxes (N, 4) px of the image, each in its color, rimmed in white."""
    large = prepare_canvas(image)
    factor, line = large.width / image.size[1], max(2, max(large.size) // 200)
    draw = ImageDraw.Draw(large)
    for box, color in reversed(list(zip((boxes * factor).tolist(), colors, strict=True))):
        draw.rectangle([box[0] - 1, box[1] - 1, box[2], box[3]], outline=(255, 255, 255), width=line + 2)
        draw.rectangle([box[0], box[1], box[2] - 1, box[3] - 1], outline=color, width=line)
    return large


def _spread(cells: npt.NDArray[Any], size: tuple[int, ...]) -> npt.NDArray[Any]:
    """Draw cells (h, w) at ``size`` (H, W), each as large as it is."""
    rows, columns = (np.arange(full) * n // full for full, n in zip(size, cells.shape, strict=True))
    spread: npt.NDArray[Any] = cells[rows[:, None], columns]
    return spread


def _mark_edges(labels: IntArray, width: int) -> npt.NDArray[np.bool_]:
    """Mark the pixels up to ``width`` px from another label, right or below, left or above."""
    edge = np.zeros(labels.shape, bool)
    for step in range(1, width + 1):
        across, down = labels[:, step:] != labels[:, :-step], labels[step:] != labels[:-step]
        edge[:, :-step] |= across
        edge[:-step] |= down
        edge[:, step:] |= across & (step < width)
        edge[step:] |= down & (step < width)
    return edge
