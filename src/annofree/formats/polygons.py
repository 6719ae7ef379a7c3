"""Exact conversion between masks and polygons.

Rings run along pixel edges, so their corners are integers from 0 to W and 0 to H, and COCO's rasterizer reproduces
the exact mask.  Parts are 4-connected, holes 8-connected.  A polygon that has to hold
holes or several parts joins their rings by bridges: lines traced there and back, of zero area.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL import ImageDraw
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.measure import approximate_polygon

from annofree.ops.rle import RLE, fill_polygons

__all__ = [
    "Ring",
    "bridge_rings",
    "draw_polygon",
    "fill_to_rle",
    "inset_ring",
    "paste_mask",
    "simplify_polygons",
    "trace_polygons",
    "trace_rings",
]

BoolArray = npt.NDArray[np.bool_]
Points = npt.NDArray[np.int64]
FloatPoints = npt.NDArray[np.float64]

_FEW = 64  # rings
_LINE = 2  # corners that span no area


@dataclass(frozen=True, eq=False)
class Ring:
    """A closed outline: ``points`` (n, 2) x y, turning by a right angle at each; clockwise as seen, holes too.

    ``part`` numbers the connected part, from 1, that it bounds.
    """

    points: Points
    hole: bool
    part: int


def trace_rings(mask: BoolArray) -> list[Ring]:
    """Trace the outlines of a mask (H, W) along its pixels' edges; outer rings come before holes.

    >>> [ring.points.tolist() for ring in trace_rings(np.array([[False, True]]))]
    [[[1, 0], [2, 0], [2, 1], [1, 1]]]
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return []
    top, left = int(rows[0]), int(columns[0])
    cropped = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    labels: npt.NDArray[np.int32] = np.asarray(ndimage.label(cropped)[0], np.int32)
    found = [_ring(points, cropped, labels) for points in _loops(*_corners(cropped))]
    moved = [Ring(ring.points + np.array([left, top]), ring.hole, ring.part) for ring in found]
    return sorted(moved, key=lambda ring: ring.hole)


def _ring(points: Points, mask: BoolArray, labels: npt.NDArray[np.int32]) -> Ring:
    """Tell a hole by the pixel below and right of the ring's first corner, the topmost of its leftmost."""
    x, y = points[0]
    hole = not mask[y, x]
    return Ring(points, hole, int(labels[y - 1, x] if hole else labels[y, x]))


def _corners(mask: BoolArray) -> tuple[Points, Points]:
    """Where outlines turn: x y of each corner, and its rank (n, 2) among those of its place along the row and the column.

    A place where two pixels touch crosswise is two corners, one of each pixel.
    """
    padded = np.pad(mask, 1).astype(np.int8)
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    single = (a + b + c + d) % 2 == 1
    falling, rising = (a == d) & (b == c) & (a > b), (a == d) & (b == c) & (b > a)
    groups = [(single, (0, 0)), (falling, (0, 0)), (falling, (1, 1)), (rising, (0, 1)), (rising, (1, 0))]
    places = [np.argwhere(where)[:, ::-1] for where, _ in groups]
    ranks = [np.tile(np.array(rank), (len(p), 1)) for p, (_, rank) in zip(places, groups, strict=True)]
    return np.concatenate(places), np.concatenate(ranks)


def _loops(places: Points, ranks: Points) -> list[Points]:
    """Walk from corner to corner, along its row, then along its column: neighbors in each are joined two by two."""
    x, y = places.T
    across = _partners(np.lexsort((ranks[:, 0], x, y)))
    down = _partners(np.lexsort((ranks[:, 1], y, x)))
    left = np.ones(len(places), bool)
    loops = []
    for start in np.lexsort((x, y)).tolist():
        if not left[start]:
            continue
        walk, at = [], start
        while left[at]:
            other = across[at]
            walk += [at, other]
            left[at] = left[other] = False
            at = down[other]
        loops.append(_clockwise(places[walk]))
    return loops


def _partners(order: Points) -> list[int]:
    partners = np.empty(len(order), np.int64)
    partners[order[0::2]], partners[order[1::2]] = order[1::2], order[0::2]
    return list(partners.tolist())


def _clockwise(points: Points) -> Points:
    """Start at the topmost corner, the leftmost of these, and go right."""
    points = np.roll(points, -int(np.lexsort((points[:, 0], points[:, 1]))[0]), axis=0)
    return points if points[1, 1] == points[0, 1] else np.concatenate([points[:1], points[:0:-1]])


def trace_polygons(mask: BoolArray) -> list[Points]:
    """Return one polygon (n, 2) per part of a mask, with bridged holes."""
    found = trace_rings(mask)
    parts = dict.fromkeys(ring.part for ring in found)
    return [bridge_rings([ring for ring in found if ring.part == part]) for part in parts]


def simplify_polygons(mask: BoolArray, tolerance: float = 1.0) -> list[FloatPoints]:
    """Return one polygon (n, 2) per part of a mask, with few corners, as people edit them.

    No corner that is left out is farther off than ``tolerance`` px; a part too small for that keeps its exact outline.
    """
    exact = [np.asarray(points, np.float64) for points in trace_polygons(mask)]
    closed = (np.concatenate([points, points[:1]]) for points in exact)
    simple = [np.asarray(approximate_polygon(points, tolerance))[:-1] for points in closed]
    return [few if len(few) > _LINE else points for few, points in zip(simple, exact, strict=True)]


def bridge_rings(found: Sequence[Ring]) -> Points:
    """Join rings to one polygon (n, 2): each next one by a bridge between its nearest corner and one before it."""
    outline = known = found[0].points
    tree = cKDTree(known)
    for count, ring in enumerate(found[1:]):
        if count and (count < _FEW or len(outline) > 1.5 * len(known)):  # a new tree for each would take long for thousands
            known = outline
            tree = cKDTree(known)
        distances, nearest = (np.asarray(answer) for answer in tree.query(ring.points))
        here = int(np.argmin(distances))
        there = int(np.flatnonzero((outline == known[nearest[here]]).all(1))[0])
        tour = np.concatenate([ring.points[here:], ring.points[: here + 1]])
        outline = np.concatenate([outline[: there + 1], tour, outline[there:]])
    return outline


def inset_ring(ring: Ring) -> Points:
    """Move an outer ring from its pixels' edges to their centers, (n, 2) as indices of pixels.

    For programs that also fill the pixels under a polygon's line.
    """
    onward = np.sign(np.roll(ring.points, -1, axis=0) - ring.points)
    inward = np.stack([-onward[:, 1], onward[:, 0]], axis=1)
    return np.asarray((2 * ring.points + inward + np.roll(inward, 1, axis=0) - 1) // 2, np.int64)


def fill_to_rle(polygons: Sequence[npt.ArrayLike], size: tuple[int, int]) -> RLE:
    """Fill polygons (n, 2) as COCO does, corners on pixel edges, and return their union as compressed run lengths."""
    flat = [np.asarray(polygon, float).ravel().tolist() for polygon in polygons]
    return fill_polygons(flat, size)


def draw_polygon(polygon: npt.ArrayLike, size: tuple[int, int]) -> BoolArray:
    """Fill a polygon (n, 2) together with its line as Pillow does, corners on pixel centers: a mask (H, W)."""
    canvas = PIL.Image.new("1", (size[1], size[0]))
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in np.asarray(polygon, float).tolist()], fill=1, outline=1)
    return np.asarray(canvas, bool)


def paste_mask(part: BoolArray, left: int, top: int, size: tuple[int, int]) -> BoolArray:
    """Return a mask (H, W) with a part of it at a place; what lies outside is cut.

    >>> paste_mask(np.ones((2, 2), bool), -1, 1, (2, 3)).astype(int).tolist()
    [[0, 0, 0], [1, 0, 0]]
    """
    mask = np.zeros(size, bool)
    inside = part[max(0, -top) : max(0, size[0] - top), max(0, -left) : max(0, size[1] - left)]
    y, x = max(0, top), max(0, left)
    mask[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return mask
