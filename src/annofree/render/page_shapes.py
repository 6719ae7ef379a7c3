"""Instances as compact SVG paths, accurate to what a page can show.

Paths count in units of a thousandth of an image's longer side, whatever its pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from skimage.measure import approximate_polygon

from annofree.formats.annotations import Annotation
from annofree.formats.polygons import trace_rings
from annofree.ops.rle import decode_rle

__all__ = ["MOST_SHAPES", "SIDE", "Shape", "compute_view_box", "limit_points", "trace_shapes"]

SIDE = 1000
"""Units of the longer side of an image."""
MOST_SHAPES = 100
"""Instances that are drawn on an image, the surest."""

_POINTS, _FEWEST_POINTS, _MOST_POINTS = 60_000, 16, 200  # of all outlines on a page; of one
_MOST_RINGS = 24
_SMALLEST = 0.002  # of the largest ring's area; what is less is left out
_NEAR = 1.0  # px that an outline may be off its mask, to begin with

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """One instance on a page: its class ``name``, its ``score``, None in ground truth, and its ``path`` as SVG has it."""

    name: str
    score: float | None
    path: str


def compute_view_box(size: tuple[int, int]) -> tuple[int, int]:
    """Return the view box (width, height) that the paths of an image of ``size`` (H, W) lie in.

    >>> compute_view_box((480, 640))
    (1000, 750)
    """
    scale = SIDE / max(1, *size)
    return round(size[1] * scale), round(size[0] * scale)


def limit_points(count: int) -> int:
    """Return the maximum number of points per outline for ``count`` outlines, to keep the page small.

    >>> limit_points(10), limit_points(3600)
    (200, 16)
    """
    return min(_MOST_POINTS, max(_FEWEST_POINTS, _POINTS // max(1, count)))


def trace_shapes(things: Sequence[Annotation], size: tuple[int, int], points: int = _MOST_POINTS) -> list[Shape]:
    """Return the ``MOST_SHAPES`` highest-scoring instances of an image of ``size`` (H, W), the highest last, on top.

    A path has at most about ``points`` points; an instance without a mask, or with a tiny one, is drawn as its box.

    >>> trace_shapes([Annotation("dog", (0, 0, 5, 10), score=0.5)], (10, 10))
    [Shape(name='dog', score=0.5, path='M0 0l500 0 0 1000-500 0z')]
    """
    surest = sorted(things, key=lambda thing: -_sure(thing))[:MOST_SHAPES]
    return [Shape(thing.name, thing.score, _path(thing, size, points)) for thing in reversed(surest)]


def _sure(thing: Annotation) -> float:
    return 1.0 if thing.score is None else thing.score


def _path(thing: Annotation, size: tuple[int, int], points: int) -> str:
    found = [] if thing.rle is None else _outlines(decode_rle(thing.rle), points)
    if not found:
        x0, y0, x1, y1 = thing.box
        found = [np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)]
    scale = SIDE / max(1, *size)
    return "".join(_closed(outline * scale) for outline in found)


def _outlines(mask: npt.NDArray[np.bool_], points: int) -> list[Points]:
    """The outlines (n, 2) of a mask in its pixels, holes too, coarser until they have ``points`` points in all."""
    step = math.ceil(max(mask.shape) / SIDE)
    traced: list[Points] = [
        np.asarray(ring.points * step, float) for ring in trace_rings(mask[step // 2 :: step, step // 2 :: step])
    ]
    found = _largest(traced)
    near, kept = _NEAR * step, found
    while found and (kept := list(_simpler(found, near))) and sum(map(len, kept)) > points:
        near *= 1.5
    return kept


def _largest(outlines: Iterable[Points]) -> list[Points]:
    """Drop parts too small to be visible, as noisy masks have many."""
    sized = sorted(((_area(outline), k, outline) for k, outline in enumerate(outlines)), key=lambda item: (-item[0], item[1]))
    return [outline for area, _, outline in sized[:_MOST_RINGS] if area >= _SMALLEST * sized[0][0]]


def _area(outline: Points) -> float:
    x, y = outline.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _simpler(outlines: Iterable[Points], near: float) -> Iterable[Points]:
    """Leave out points that are ``near`` the line without them (Douglas and Peucker), and outlines that become a line."""
    for outline in outlines:
        closed = np.concatenate([outline, outline[:1]])
        kept: Points = approximate_polygon(closed, near)[:-1]
        if len(kept) > 2:
            yield kept


def _closed(outline: Points) -> str:
    """Write an outline as a closed path in whole units: a start, then steps."""
    corners = np.round(outline).astype(int)
    steps = [step for step in np.diff(corners, axis=0).tolist() if step != [0, 0]]
    numbers = "".join(f" {value}" if value >= 0 else str(value) for step in steps for value in step)
    return f"M{corners[0, 0]} {corners[0, 1]}l{numbers.strip()}z"
