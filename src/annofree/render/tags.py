"""Tags with names on an image: where each hides the least, and none hides another.

A tag is tried at many positions around its box, from near to far: outside, inside, away with a leader line.  What it
would hide is measured as fractions of instances, so small ones count as much as large ones.  If no position is free, the next
shorter text is tried, and finally the tag is dropped.  Integer arithmetic makes the choice the same on all machines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL import ImageDraw

from annofree.ops.palette import Color, choose_ink
from annofree.render.lettering import Font, compute_padding, load_font, measure_plate

__all__ = ["Cover", "Tag", "Tagging"]

Box = tuple[int, int, int, int]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

_CELLS = 512  # along the longer side of an image, at most
_WHOLE = 1 << 20  # what it costs to hide all of one instance
_BOX = 4  # hiding all of a box costs so much less than hiding a mask
_LIMIT = _WHOLE // 4  # what a tag may hide
_STEP = _WHOLE // 256  # what the next place in the order of preference costs
_AWAY = _WHOLE // 12  # what the distance of a tag's height costs
_RINGS = (0.75, 2.0, 3.5)  # distances of the places away, in heights of a tag
_NOTE_PLATE: Color = (20, 20, 20)


class Cover:
    """What lies where in an image of ``size`` (H, W): how much of the instances a rectangle would hide."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        cell = -(-max(size) // _CELLS)
        self._cells = (-(-size[0] // cell), -(-size[1] // cell))
        self._density = np.zeros(self._cells, np.int64)
        self._sums: IntArray | None = None
        self._masks: dict[int, tuple[int, int, npt.NDArray[np.uint8]]] = {}

    def add(self, number: int, mask: PIL.Image.Image, box: Box) -> None:
        """Add an instance: its mask (0 or 255) over the whole image, in any resolution, and its box x0 y0 x1 y1 px."""
        x0, y0, x1, y1 = self._within(np.array([box]))[0].tolist()
        across, down = mask.width / self._cells[1], mask.height / self._cells[0]
        window = (x0 * across, y0 * down, x1 * across, y1 * down)
        inside = np.asarray(mask.resize((x1 - x0, y1 - y0), PIL.Image.Resampling.BOX, window))
        if not inside.any():  # less than what a cell can show
            inside = np.full(inside.shape, 255, np.uint8)
        self._masks[number] = (x0, y0, inside)
        own = inside.astype(np.int64) * _WHOLE // int(inside.sum(dtype=np.int64)) + _WHOLE // _BOX // inside.size
        part = self._density[y0:y1, x0:x1]
        np.maximum(part, own, out=part)  # of those that lie upon each other, the smallest counts
        self._sums = None

    def count_hidden(self, places: IntArray) -> IntArray:
        """Return what each of some rectangles (N, 4) x0 y0 x1 y1 px would hide, 2²⁰ for all of one instance."""
        if self._sums is None:
            self._sums = np.pad(self._density.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        x0, y0, x1, y1 = self._within(places).T
        hidden: IntArray = self._sums[y1, x1] - self._sums[y0, x1] - self._sums[y1, x0] + self._sums[y0, x0]
        return hidden

    def find_nearest(self, number: int, at: tuple[int, int]) -> tuple[int, int]:
        """Return the point x y, px, of the mask ``number`` that is nearest to another point."""
        x0, y0, mask = self._masks[number]
        ys, xs = np.nonzero(mask >= max(1, int(mask.max()) // 2))
        (h, w), (height, width) = self._cells, self._size
        xs, ys = (2 * (xs + x0) + 1) * width // (2 * w), (2 * (ys + y0) + 1) * height // (2 * h)
        k = int(((xs - at[0]) ** 2 + (ys - at[1]) ** 2).argmin())
        return int(xs[k]), int(ys[k])

    def _within(self, places: IntArray) -> IntArray:
        """The cells that rectangles touch, at least one each, x0 y0 x1 y1, end-exclusive."""
        (h, w), (height, width) = self._cells, self._size
        scale, whole = np.array([w, h]), np.array([width, height])
        low = np.clip(places[:, :2] * scale // whole, 0, scale - 1)
        high = np.clip(-(-places[:, 2:] * scale // whole), low + 1, scale)
        return np.concatenate([low, high], 1)


@dataclass(frozen=True)
class Tag:
    """A tag for a ``box`` in its ``color``: the first of ``texts`` that fits."""

    box: Box
    color: Color
    texts: tuple[str, ...]


class Tagging:
    """Places tags in an image of ``size`` (H, W), whose instances ``cover`` knows, in letters of ``letters`` px."""

    def __init__(self, size: tuple[int, int], cover: Cover, letters: int) -> None:
        self._size, self._cover, self._letters = size, cover, letters
        self._font: Font = load_font(letters)
        self._taken: list[Box] = []
        self._written: list[tuple[int, Tag, str, Box]] = []
        self._notes: list[tuple[str, Box]] = []

    @property
    def places(self) -> list[Box]:
        """The rectangles of all tags and notes so far, x0 y0 x1 y1 px, end-exclusive."""
        return list(self._taken)

    @property
    def texts(self) -> list[str]:
        """The texts of the tags so far."""
        return [text for _, _, text, _ in self._written]

    @property
    def notes(self) -> list[str]:
        """The remarks so far."""
        return [text for text, _ in self._notes]

    def place(self, number: int, tag: Tag) -> bool:
        """Place the tag of instance ``number`` of the cover; False if there is no room."""
        for text in tag.texts:
            found = self._best(tag.box, measure_plate(text, self._font, self._letters))
            if found is not None:
                self._taken.append(found)
                self._written.append((number, tag, text, found))
                return True
        return False

    def note(self, text: str) -> bool:
        """Find a place for a remark on the whole image, near a corner; False where there is none."""
        (w, h), (height, width) = measure_plate(text, self._font, self._letters), self._size
        if w > width or h > height:
            return False
        xs, ys = (np.linspace(0, room, 1 + min(16, room)).astype(np.int64) for room in (width - w, height - h))
        corners = np.stack(np.meshgrid(xs, ys[::-1], indexing="ij"), -1).reshape(-1, 2)  # the bottom left first
        places = np.concatenate([corners, corners + np.array([w, h])], 1)
        inward = np.minimum(corners, np.array([width - w, height - h]) - corners).max(1)
        cost = self._cover.count_hidden(places) + inward * _AWAY // h + ~self._free(places) * (_WHOLE << 20)
        found = _box(places[int(cost.argmin())])
        self._taken.append(found)
        self._notes.append((text, found))
        return True

    def _best(self, box: Box, size: tuple[int, int]) -> Box | None:
        (w, h), (height, width) = size, self._size
        if w > width or h > height:
            return None
        corners = np.array(list(_corners(box, size)), np.int64)
        order = np.arange(len(corners)) * _STEP
        corners = np.clip(corners, 0, np.array([width - w, height - h]))
        places = np.concatenate([corners, corners + np.array([w, h])], 1)
        free = self._free(places)
        hidden = self._cover.count_hidden(places)
        cost = hidden + order + _gaps(places, box) * _AWAY // h
        cost[~free | (hidden > _LIMIT)] = np.iinfo(np.int64).max
        k = int(cost.argmin())
        return None if cost[k] == np.iinfo(np.int64).max else _box(places[k])

    def _free(self, places: IntArray) -> BoolArray:
        """Which places (N, 4) share no pixel with a tag, nor touch one."""
        if not self._taken:
            return np.ones(len(places), bool)
        taken = np.array(self._taken)
        apart = (places[:, None, :2] > taken[None, :, 2:]) | (places[:, None, 2:] < taken[None, :, :2])
        free: BoolArray = np.all(np.any(apart, axis=2), axis=1)
        return free

    def draw(self, canvas: PIL.Image.Image) -> None:
        """Draw lines first, then plates and letters."""
        draw = ImageDraw.Draw(canvas)
        line = max(1, self._letters // 10)
        for number, tag, _, place in self._written:
            if _gaps(np.array([place]), tag.box)[0] > 0:
                self._draw_leader(draw, number, tag.color, place, line)
        for _, tag, text, place in self._written:
            self._draw_plate(draw, place, text, tag.color, line)
        for text, place in self._notes:
            self._draw_plate(draw, place, text, _NOTE_PLATE, line)

    def _draw_leader(self, draw: ImageDraw.ImageDraw, number: int, color: Color, place: Box, line: int) -> None:
        """A line from a tag to its instance, which ends in a dot."""
        x0, y0, x1, y1 = place
        x, y = self._cover.find_nearest(number, ((x0 + x1) // 2, (y0 + y1) // 2))
        start = min(max(x, x0 + 3), x1 - 4), min(max(y, y0 + 3), y1 - 4)
        for wide, tone in ((line + 2 * max(1, line // 2), (255, 255, 255)), (line, color)):
            draw.line((*start, x, y), fill=tone, width=wide)
            reach = wide + 1
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=tone)

    def _draw_plate(self, draw: ImageDraw.ImageDraw, place: Box, text: str, color: Color, line: int) -> None:
        (x0, y0, x1, y1), pad = place, compute_padding(self._letters)
        draw.rounded_rectangle((x0, y0, x1 - 1, y1 - 1), radius=pad, fill=color, outline=(255, 255, 255), width=line)
        draw.text((x0 + pad, (y0 + y1) / 2), text, fill=choose_ink(color), font=self._font, anchor="lm")


def _box(place: IntArray) -> Box:
    x0, y0, x1, y1 = place.tolist()
    return x0, y0, x1, y1


def _corners(box: Box, size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The top left corners of a tag around a box, the best first: above, below, beside, inside, away."""
    (x0, y0, x1, y1), (w, h) = box, size
    xs, ys = (x0, x1 - w, (x0 + x1 - w) // 2), (y0, y1 - h, (y0 + y1 - h) // 2)
    yield from ((x, y) for y in (y0 - h, y1) for x in xs)
    yield from ((x, y) for x in (x1, x0 - w) for y in ys)
    yield from ((x, y) for y in ys for x in xs)
    for ring in _RINGS:
        r = round(ring * h)
        left, right, top, bottom = x0 - w - r, x1 + r, y0 - h - r, y1 + r
        yield from ((x, y) for y in (top, bottom) for x in (*xs, right, left))
        yield from ((x, y) for x in (right, left) for y in ys)


def _gaps(places: IntArray, box: Box) -> IntArray:
    """How far places (N, 4) are from a box along the axis on which they are farther, px; 0 where they meet."""
    x0, y0, x1, y1 = box
    across = np.maximum(places[:, 0] - x1, x0 - places[:, 2])
    down = np.maximum(places[:, 1] - y1, y0 - places[:, 3])
    return np.maximum(np.maximum(across, down), 0)
