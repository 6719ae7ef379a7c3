"""Images with their instances, scaled, cut and mirrored together, and laid over each other.

Images are resized with Pillow's antialiased bilinear filter, masks by nearest pixel center and only within their boxes.
Conventions: H W px, N instances; masks (N, H, W) bool; class ids index the names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image

from annofree.datasets.labeled import Example
from annofree.ops.boxes import compute_tight_boxes
from annofree.structures import BoolArray, FloatArray, IntArray
from annofree.training.augment.color import Axis

__all__ = ["Cutouts", "Layer", "WindowView", "crop_view", "lay_over"]

Pixels = npt.NDArray[np.uint8]


class Cutouts(NamedTuple):
    """An image ``pixels`` (H, W, 3) uint8 with its masks, each cut out to its ``boxes`` (N, 4) int64 x0 y0 x1 y1 px.

    ``class_ids`` (N) and ``scores`` (N) go with them.
    """

    pixels: Pixels
    masks: tuple[BoolArray, ...]
    boxes: IntArray
    class_ids: IntArray
    scores: FloatArray

    @classmethod
    def of(cls, example: Example) -> Cutouts:
        """Cut the masks of an opened image out."""
        boxes = example.boxes.astype(np.int64)
        cuts = (m[y0:y1, x0:x1].copy() for m, (x0, y0, x1, y1) in zip(example.masks, boxes.tolist(), strict=True))
        return cls(example.image, tuple(cuts), boxes, example.class_ids, example.scores)

    @property
    def memory(self) -> int:
        """Bytes that it takes."""
        return self.pixels.nbytes + sum(mask.nbytes for mask in self.masks)

    def select(self, chosen: IntArray) -> Cutouts:
        """The same image with some of the instances."""
        return self._replace(
            masks=tuple(self.masks[i] for i in chosen),
            boxes=self.boxes[chosen],
            class_ids=self.class_ids[chosen],
            scores=self.scores[chosen],
        )


class WindowView(NamedTuple):
    """Which part of an image is taken, as a window of its rows and of its columns when scaled, and whether it is mirrored."""

    rows: Axis
    columns: Axis
    flip: bool = False

    @classmethod
    def whole(cls, size: tuple[int, int], scaled: tuple[int, int], flip: bool = False) -> WindowView:
        """All of an image of ``size`` (H, W), at another."""
        rows, columns = (Axis(n, m, 0, 0, m) for n, m in zip(size, scaled, strict=True))
        return cls(rows, columns, flip)


@dataclass(frozen=True, eq=False)
class Layer:
    """An image with what is in it: ``pixels`` (H, W, 3) uint8, ``masks`` (N, H, W) bool, ``class_ids`` (N) int64.

    ``whole`` (N) float32: how many px each instance would show, were nothing cut off and nothing in front of it; ``scores`` (N)
    float32, those of its labels.
    """

    pixels: Pixels
    masks: BoolArray
    class_ids: IntArray
    whole: FloatArray
    scores: FloatArray

    def __len__(self) -> int:
        return len(self.class_ids)

    def __getitem__(self, keep: BoolArray | IntArray) -> Layer:
        """The same image with some of the instances."""
        parts = {name: getattr(self, name)[keep] for name in ("masks", "class_ids", "whole", "scores")}
        return replace(self, **parts)

    def count_visible(self) -> IntArray:
        """Px that each instance shows, (N)."""
        return _counts(self.masks)

    def drop_hidden(self, share: float, area: int) -> Layer:
        """Without the instances that show less than ``share`` of themselves, fewer than ``area`` px or nothing."""
        seen = self.count_visible()
        return self[(seen >= max(1, area)) & (seen >= share * self.whole)]


def crop_view(image: Cutouts, through: WindowView) -> Layer:
    """Scale an image with its masks, cut the window out and mirror it."""
    rows, columns, flip = through
    pixels, masks = _scaled(image.pixels, rows, columns), _scaled_masks(image, rows, columns)
    factor = rows.scaled * columns.scaled / (rows.count * columns.count)
    whole = (_counts(image.masks) * factor).astype(np.float32)
    if flip:
        pixels, masks = pixels[:, ::-1], masks[:, :, ::-1]
    return Layer(pixels, masks, image.class_ids, whole, image.scores)


def _scaled(pixels: Pixels, rows: Axis, columns: Axis) -> Pixels:
    (top, bottom), (left, right) = rows.find_source_span(0, rows.length), columns.find_source_span(0, columns.length)
    if (rows.length, columns.length) == (bottom - top, right - left):
        return pixels[int(top) : int(bottom), int(left) : int(right)]
    size = columns.length, rows.length
    return np.asarray(PIL.Image.fromarray(pixels).resize(size, PIL.Image.Resampling.BILINEAR, box=(left, top, right, bottom)))


def _scaled_masks(image: Cutouts, rows: Axis, columns: Axis) -> BoolArray:
    down, across = rows.list_sources(), columns.list_sources()
    masks = np.zeros((len(image.masks), rows.length, columns.length), bool)
    for scaled, cut, (x0, y0, x1, y1) in zip(masks, image.masks, image.boxes.tolist(), strict=True):
        (top, bottom), (left, right) = np.searchsorted(down, (y0, y1)).tolist(), np.searchsorted(across, (x0, x1)).tolist()
        scaled[top:bottom, left:right] = cut[down[top:bottom] - y0][:, across[left:right] - x0]
    return masks


def lay_over(below: Layer, above: Layer, at: tuple[int, int], most_hidden: float = 1.0) -> Layer:
    """Paste the instances of one layer over another, with the top left corner of the layer ``at`` y x; edges are hard.

    An instance that would hide ``most_hidden`` or more of what any one below shows is not pasted, but 1 allows all.  Those
    below lose the pixels that are pasted over; one that loses all stays in the list, with an empty mask.
    """
    (y, x), (height, width) = at, above.pixels.shape[:2]
    window = slice(y, y + height), slice(x, x + width)
    hidden = _hidden(below, above, window)
    chosen = above[np.flatnonzero((hidden < most_hidden).all(1) | (most_hidden >= 1))]
    union: BoolArray = np.any(chosen.masks, axis=0)
    pixels, masks = below.pixels.copy(), np.zeros((len(below) + len(chosen), *below.pixels.shape[:2]), bool)
    masks[: len(below)] = below.masks
    masks[: len(below), *window] &= ~union
    masks[len(below) :, *window] = chosen.masks
    np.copyto(pixels[window], chosen.pixels, where=union[..., None])
    joined = (np.concatenate([getattr(one, part) for one in (below, chosen)]) for part in ("class_ids", "whole", "scores"))
    return Layer(pixels, masks, *joined)


def _hidden(below: Layer, above: Layer, window: tuple[slice, slice]) -> FloatArray:
    """Which part of what each instance below shows each one above would hide, (above, below)."""
    under, shown = below.masks[:, *window], np.maximum(1, below.count_visible())
    hidden = np.zeros((len(above), len(below)), np.float32)
    for row, mask, box in zip(hidden, above.masks, compute_tight_boxes(above.masks).astype(int).tolist(), strict=True):
        x0, y0, x1, y1 = box  # whose pixels alone are looked at
        row[:] = _counts(under[:, y0:y1, x0:x1] & mask[y0:y1, x0:x1]) / shown
    return hidden


def _counts(masks: Iterable[BoolArray]) -> IntArray:
    """Px in each mask; one by one, for that is NumPy's fast path."""
    return np.array([np.count_nonzero(mask) for mask in masks], np.int64)
