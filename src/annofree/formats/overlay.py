"""A picture with what was found drawn over it, for people to look at.

Each instance has a tint, a contour, a thin box and a small tag with its name and score.  Contour, box and tag have the colour
of the class, the same in every picture and run; the tint is that colour, or a lighter or darker one where another instance of
the same colour is near.
"""

from __future__ import annotations

import math

import PIL.Image
from PIL import ImageChops, ImageDraw, ImageFilter, ImageFont

from annofree.errors import InputError
from annofree.formats.class_colours import class_colour
from annofree.structures import Detections, Image

__all__ = ["draw_overlay"]

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]

# Towards white, or black where negative: what tells instances of one colour apart that lie side by side.
_SHADES = (0.0, 0.5, -0.4, 0.75, -0.65)
_TINT = 0.45
_SHORTEST = 512  # px; smaller pictures are enlarged, for no font is legible on them
_LONGEST_NAME = 28  # characters


def draw_overlay(image: Image, detections: Detections, min_score: float = 0.0, limit: int = 50) -> PIL.Image.Image:
    """Draw the ``limit`` strongest detections that score at least ``min_score`` over their picture.

    A picture whose long side is under 512 px is enlarged by a whole factor first.  The same input gives the same output.
    Raises InputError when the detections are of another size than the picture.

    >>> import numpy as np
    >>> picture = Image(np.zeros((100, 200, 3), np.uint8))
    >>> draw_overlay(picture, Detections.none((100, 200), ["dog"])).size
    (600, 300)
    """
    if image.size != detections.size:
        raise InputError(f"expected detections of a picture of size {image.size}, got detections of size {detections.size}")
    shown = detections[detections.scores >= min_score][:limit]
    factor = max(1, math.ceil(_SHORTEST / max(image.size)))
    width, height = image.size[1] * factor, image.size[0] * factor
    canvas = PIL.Image.fromarray(image.pixels).resize((width, height), PIL.Image.Resampling.BICUBIC)
    boxes = [_outward(box) for box in (shown.boxes * factor).tolist()]
    colours = [class_colour(name) for name in shown.labels]
    tints = _tints(boxes, colours, gap=max(width, height) // 50)
    line = max(2, round(max(width, height) / 450))
    for i in reversed(range(len(shown))):  # the strongest end on top
        shape, at = _shape(shown[i : i + 1], factor, margin=math.ceil(3 * line / factor))
        _draw_mask(canvas, shape, at, colours[i], tints[i], line)
        ImageDraw.Draw(canvas).rectangle(_inside(boxes[i]), outline=colours[i], width=max(1, line // 2))
    _draw_tags(canvas, boxes, colours, [_text(n, s) for n, s in zip(shown.labels, shown.scores.tolist(), strict=True)])
    return canvas


def _outward(box: list[float]) -> Box:
    return math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])


def _inside(box: Box) -> Box:
    """Turn an end-exclusive box into the last pixels that Pillow draws on."""
    return box[0], box[1], max(box[0], box[2] - 1), max(box[1], box[3] - 1)


def _tints(boxes: list[Box], colours: list[Colour], gap: int) -> list[Colour]:
    """Give each box the first shade of its colour that no box of that colour within ``gap`` px has; in a crowd, the rarest."""
    chosen: list[int] = []
    for i, box in enumerate(boxes):
        grown = (box[0] - gap, box[1] - gap, box[2] + gap, box[3] + gap)
        near = [chosen[k] for k in range(i) if colours[k] == colours[i] and _shared(grown, boxes[k])]
        chosen.append(min(range(len(_SHADES)), key=near.count))
    return [_shaded(colour, _SHADES[shade]) for colour, shade in zip(colours, chosen, strict=True)]


def _shaded(colour: Colour, amount: float) -> Colour:
    red, green, blue = (round(v + abs(amount) * ((255 if amount > 0 else 0) - v)) for v in colour)
    return red, green, blue


def _shared(a: Box, b: Box) -> int:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _draw_mask(
    canvas: PIL.Image.Image, shape: PIL.Image.Image, at: tuple[int, int], colour: Colour, tint: Colour, line: int
) -> None:
    """Tint a mask (0 or 255) placed ``at`` x y, with its contour just inside it and a soft dark edge outside."""
    blurred = shape.filter(ImageFilter.GaussianBlur(line))
    # On a straight edge the blur reaches 84 % one sigma inside it, so the contour is ``line`` px wide there.
    contour = ImageChops.darker(shape, blurred.point(lambda v: 255 * (v < 214)))
    canvas.paste((0, 0, 0), at, ImageChops.subtract(blurred, shape))
    canvas.paste(tint, at, shape.point(lambda v: v * _TINT))
    canvas.paste(colour, at, contour.filter(ImageFilter.GaussianBlur(0.6)))


def _shape(detection: Detections, factor: int, margin: int) -> tuple[PIL.Image.Image, tuple[int, int]]:
    """Cut the mask of one detection out with a margin, enlarge it with smooth edges, and say where it goes, x y."""
    x0, y0, x1, y1 = detection.boxes[0].astype(int).tolist()
    window = (x0 - margin, y0 - margin, x1 + margin, y1 + margin)
    piece = PIL.Image.fromarray(detection.masks[0]).convert("L").crop(window)
    large = piece.resize((piece.width * factor, piece.height * factor), PIL.Image.Resampling.NEAREST)
    if factor > 1:  # this much blur rounds the stairs of enlarged pixels off, and a lone pixel still survives it
        large = large.filter(ImageFilter.GaussianBlur(0.45 * factor))
    return large.point(lambda v: 255 * (v > 127)), (window[0] * factor, window[1] * factor)


def _draw_tags(canvas: PIL.Image.Image, boxes: list[Box], colours: list[Colour], texts: list[str]) -> None:
    draw = ImageDraw.Draw(canvas)
    size = max(13, max(canvas.size) // 56)
    font, pad = ImageFont.load_default(size), max(2, size // 4)
    tags: list[Box] = []
    for box, text in zip(boxes, texts, strict=True):
        extent = math.ceil(draw.textlength(text, font)) + 2 * pad, size + 2 * pad
        tags.append(_free_place(box, extent, canvas.size, tags))
    for (x0, y0, x1, y1), colour, text in reversed(list(zip(tags, colours, texts, strict=True))):
        draw.rounded_rectangle((x0, y0, x1 - 1, y1 - 1), radius=pad, fill=colour)
        draw.text((x0 + pad, (y0 + y1) / 2), text, fill=_ink(colour), font=font, anchor="lm")


def _free_place(box: Box, extent: tuple[int, int], size: tuple[int, int], others: list[Box]) -> Box:
    """Choose the spot at the box where a tag of ``extent`` (width, height) hides the least of the other tags."""
    (w, h), (x0, y0, x1, y1) = extent, box
    corners = ((x0, y0 - h), (x0, y0), (x1 - w, y0 - h), (x0, y1 - h), (x1 - w, y1 - h), (x0, y1), (x1 - w, y1))
    kept = [(max(0, min(x, size[0] - w)), max(0, min(y, size[1] - h))) for x, y in corners]
    return min(((x, y, x + w, y + h) for x, y in kept), key=lambda tag: sum(_shared(tag, other) for other in others))


def _text(name: str, score: float) -> str:
    name = " ".join(name.split())
    short = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
    return f"{short} {score:.2f}"


def _ink(colour: Colour) -> Colour:
    """Black or white, whichever stands out more on a colour, by the contrast ratio of WCAG 2."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in colour)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else (255, 255, 255)
