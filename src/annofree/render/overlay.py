"""An image with what was found drawn over it, for people to look at.

Each instance has a tint, a contour, a thin box and a small tag with its name and score.  Contour, box and tag have the color
of the class, by its index; the tint is that color, or a lighter or darker one if another instance of the
class is near.  A contour is rimmed in white and black, so it is visible on any background.
"""

from __future__ import annotations

import math

import PIL.Image
from PIL import ImageChops, ImageDraw, ImageFilter

from annofree.errors import InputError
from annofree.ops.palette import Color, assign_colors
from annofree.render.lettering import shorten_name
from annofree.render.tags import Cover, Tag, Tagging
from annofree.structures import Detections, Image

__all__ = ["draw_overlay"]

Box = tuple[int, int, int, int]

# Towards white, or black where negative: what tells instances of one color apart that lie side by side.
_SHADES = (0.0, 0.5, -0.4, 0.75, -0.65)
_TINT = round(0.45 * 255)
_PALE = 0.6  # how much of its own color the image loses under a tint

# By what a mask is after a blur whose sigma is the width of a line, 0 .. 255: half on a straight edge, 84 % one line inside it
# and 16 % outside.
_INNER = [255 * (v < 226) for v in range(256)]
_WHITE = [max(0, min(255, 6 * (v - 45))) for v in range(256)]
_BLACK = [min(255, 8 * v) for v in range(256)]
_SOLID = [255 * (v > 127) for v in range(256)]
_ANY = [255 * (v > 0) for v in range(256)]

_SHORTEST = 512  # px; smaller images are enlarged, for no font is legible on them
_LETTERS = 13  # px at least


def draw_overlay(
    image: Image, detections: Detections, min_score: float = 0.0, limit: int = 50, *, with_scores: bool = True
) -> PIL.Image.Image:
    """Draw the ``limit`` strongest detections that score at least ``min_score`` over their image.

    Small ones are drawn over large ones.  Tags have scores ``with_scores``, which a truth has not.  The image says how many
    more there are, and how many tags found no room.  One whose long side is under 512 px is enlarged by an integer factor
    first.  The output is deterministic.
    Raises InputError when the detections are of another size than the image.

    >>> import numpy as np
    >>> image = Image(np.zeros((100, 200, 3), np.uint8))
    >>> draw_overlay(image, Detections.none((100, 200), ["dog"])).size
    (600, 300)
    """
    if image.size != detections.size:
        raise InputError(f"expected detections of an image of size {image.size}, got detections of size {detections.size}")
    kept = detections[detections.scores >= min_score]
    shown = kept[:limit]
    factor = max(1, math.ceil(_SHORTEST / max(image.size)))
    width, height = image.size[1] * factor, image.size[0] * factor
    canvas = PIL.Image.fromarray(image.pixels).resize((width, height), PIL.Image.Resampling.BICUBIC)
    if len(kept):
        boxes = [_outward(box) for box in (shown.boxes * factor).tolist()]
        known = assign_colors(detections.names)
        colors = [known[name] for name in shown.labels.tolist()]
        cover = _draw_instances(canvas, shown, boxes, colors, factor)
        _draw_tags(canvas, shown, boxes, colors, cover, len(kept) - len(shown), with_scores)
    return canvas


def _outward(box: list[float]) -> Box:
    return math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])


def _inside(box: Box) -> Box:
    """Convert an end-exclusive box to Pillow's inclusive coordinates."""
    return box[0], box[1], max(box[0], box[2] - 1), max(box[1], box[3] - 1)


def _tints(boxes: list[Box], colors: list[Color], gap: int) -> list[Color]:
    """Give each box the first shade of its color that no box of that color within ``gap`` px has; in a crowd, the rarest."""
    chosen: list[int] = []
    for i, box in enumerate(boxes):
        grown = (box[0] - gap, box[1] - gap, box[2] + gap, box[3] + gap)
        near = [chosen[k] for k in range(i) if colors[k] == colors[i] and _meet(grown, boxes[k])]
        chosen.append(min(range(len(_SHADES)), key=near.count))
    return [_shaded(color, _SHADES[shade]) for color, shade in zip(colors, chosen, strict=True)]


def _shaded(color: Color, amount: float) -> Color:
    red, green, blue = (round(v + abs(amount) * ((255 if amount > 0 else 0) - v)) for v in color)
    return red, green, blue


def _meet(a: Box, b: Box) -> bool:
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


class _Layer:
    """Paint that is laid over an image at once, so that what is painted twice in it hides no more of the image."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.paint, self.strength = PIL.Image.new("RGB", size), PIL.Image.new("L", size)

    def add(self, color: Color, at: tuple[int, int], mask: PIL.Image.Image, strength: int = 255) -> None:
        self.paint.paste(color, at, mask)
        self.strength.paste(strength, at, mask)

    def lay_over(self, canvas: PIL.Image.Image) -> None:
        canvas.paste(self.paint, mask=self.strength)


def _draw_instances(canvas: PIL.Image.Image, shown: Detections, boxes: list[Box], colors: list[Color], factor: int) -> Cover:
    """Draw tints, then contours and boxes, the large ones first; return the covered areas."""
    line = max(2, min(round(max(canvas.size) / 320), min(canvas.size) // 100))
    tints = _tints(boxes, colors, gap=max(canvas.size) // 50)
    tinted, drawn, cover = _Layer(canvas.size), _Layer(canvas.size), Cover(canvas.size[::-1])
    areas = shown.areas.tolist()
    for i in sorted(range(len(shown)), key=lambda k: (-areas[k], -k)):
        mask = PIL.Image.fromarray(shown[i : i + 1].masks[0]).convert("L")
        cover.add(i, mask, boxes[i])
        shape, at = _shape(mask, shown.boxes[i].astype(int).tolist(), factor, margin=math.ceil(3 * line / factor))
        tinted.add(tints[i], at, shape, _TINT)
        _draw_box(drawn, _inside(boxes[i]), colors[i], max(1, line // 2))
        _draw_contour(drawn, shape, at, colors[i], line)
    gray = PIL.Image.blend(canvas, canvas.convert("L").convert("RGB"), _PALE)
    canvas.paste(gray, mask=tinted.strength.point(_ANY))
    tinted.lay_over(canvas)
    drawn.lay_over(canvas)
    return cover


def _draw_box(layer: _Layer, box: Box, color: Color, width: int) -> None:
    ImageDraw.Draw(layer.paint).rectangle(box, outline=color, width=width)
    ImageDraw.Draw(layer.strength).rectangle(box, outline=255, width=width)


def _draw_contour(layer: _Layer, shape: PIL.Image.Image, at: tuple[int, int], color: Color, line: int) -> None:
    """Draw the contour of a mask (0 or 255) placed ``at`` x y: color just inside it, white and then black outside."""
    blurred = shape.filter(ImageFilter.GaussianBlur(line))
    outside = ImageChops.subtract(blurred, shape)
    inner = ImageChops.darker(shape, blurred.point(_INNER))
    layer.add((0, 0, 0), at, outside.point(_BLACK))
    layer.add((255, 255, 255), at, outside.point(_WHITE))
    layer.add(color, at, inner.filter(ImageFilter.GaussianBlur(0.6)))


def _shape(mask: PIL.Image.Image, box: list[int], factor: int, margin: int) -> tuple[PIL.Image.Image, tuple[int, int]]:
    """Cut a mask out with a margin, enlarge it with smooth edges, and say where it goes, x y."""
    x0, y0, x1, y1 = box
    window = (x0 - margin, y0 - margin, x1 + margin, y1 + margin)
    piece = mask.crop(window)
    large = piece.resize((piece.width * factor, piece.height * factor), PIL.Image.Resampling.NEAREST)
    if factor > 1:  # this much blur rounds the stairs of enlarged pixels off, and a lone pixel still survives it
        large = large.filter(ImageFilter.GaussianBlur(0.45 * factor))
    return large.point(_SOLID), (window[0] * factor, window[1] * factor)


def _draw_tags(
    canvas: PIL.Image.Image,
    shown: Detections,
    boxes: list[Box],
    colors: list[Color],
    cover: Cover,
    more: int,
    with_scores: bool,
) -> None:
    """Draw tags, first for one of each class, and notes on missing tags and ``more`` detections."""
    long, short = max(canvas.size), min(canvas.size)
    tagging = Tagging(canvas.size[::-1], cover, max(_LETTERS, min(long // 56, short // 20)))
    labels, scores = shown.labels.tolist(), shown.scores.tolist()
    firsts = list({name: i for i, name in reversed(list(enumerate(labels)))}.values())
    order = sorted(range(len(shown)), key=lambda i: (i not in firsts, i))
    left = 0
    for i in order:
        name = shorten_name(labels[i])
        texts = (f"{name} {scores[i]:.2f}", name) if with_scores else (name,)
        left += not tagging.place(i, Tag(boxes[i], colors[i], texts))
    said = [f"and {more} more"] * (more > 0) + [f"{left} without a tag"] * (left > 0)
    if said:
        tagging.note(", ".join(said))
    tagging.draw(canvas)
