"""Images with the object that a mask marks in them, decoded once, and parts of them as a scene needs them.

A window of a scaled image is cut out without scaling the rest, and what comes out is what scaling the whole would give.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt
import PIL.Image

from annofree.errors import InputError
from annofree.ops.rle import decode_rle
from annofree.retrieval.archive import Archive, PseudoMask
from annofree.structures import BoolArray
from annofree.training.augment.color import Axis, Color, ColorChange

__all__ = ["Axes", "CropCache", "ObjectCrop"]

Axes = tuple[Axis, Axis]
"""Rows and columns of a window."""

Box = tuple[int, int, int, int]
"""y0 x0 y1 x1 in px, end-exclusive."""


@dataclass(frozen=True, eq=False)
class ObjectCrop:
    """An image, its ``mean`` color, and the ``mask`` of its object within the object's ``box``.

    Raises InputError for a mask of another size than the image, or an empty one.
    """

    image: PIL.Image.Image
    mean: Color
    mask: BoolArray
    box: Box

    @classmethod
    def of(cls, archive: Archive, mask: PseudoMask) -> ObjectCrop:
        """Decode an image and its mask; raises ImageError for an image that cannot be read."""
        pixels, whole = archive.open(mask.id).pixels, decode_rle(mask.rle)
        if whole.shape != pixels.shape[:2] or not whole.any():
            what = f"one of {whole.shape}" if whole.any() else "an empty one"
            raise InputError(f"expected a mask of {pixels.shape[:2]} px for {mask.id}, got {what}; mask the archive anew")
        (top, bottom), (left, right) = (_extent(whole, along) for along in (0, 1))
        image = PIL.Image.fromarray(pixels)
        kept = whole[top:bottom, left:right].copy()
        return cls(image, _mean(image), kept, (top, left, bottom, right))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in px."""
        return self.image.height, self.image.width

    @property
    def memory(self) -> int:
        """Bytes that it takes: Pillow keeps four a pixel."""
        return 4 * self.image.width * self.image.height + self.mask.size

    def cut_object(self, axes: Axes) -> tuple[BoolArray, tuple[int, int]]:
        """The object as far as it is in a window, cut out tightly (h, w), and its top and left there, counted from the content.

        The mask is scaled by nearest pixel center.  (0, 0) px where none of it is in the window.
        """
        y0, x0, y1, x1 = self.box
        rows, columns = (axis.list_sources() for axis in axes)
        (top, bottom), (left, right) = np.searchsorted(rows, (y0, y1)).tolist(), np.searchsorted(columns, (x0, x1)).tolist()
        mask = self.mask[np.ix_(rows[top:bottom] - y0, columns[left:right] - x0)]
        if not mask.any():
            return np.zeros((0, 0), bool), (0, 0)
        (first, last), (near, far) = (_extent(mask, along) for along in (0, 1))
        return mask[first:last, near:far], (top + first, left + near)

    def cut_content(self, axes: Axes, light: ColorChange) -> tuple[npt.NDArray[np.uint8], Color]:
        """All of the image that is in a window, (h, w, 3), and the mean color, both in a light."""
        seen, mean = light.apply(self._scaled(axes, (0, 0, axes[0].length, axes[1].length)), self.mean)
        return np.asarray(seen), mean

    def cut_part(self, axes: Axes, box: Box, light: ColorChange) -> npt.NDArray[np.uint8]:
        """The part ``box`` of what ``cut_content`` gives, without the rest."""
        y0, x0, y1, x1 = box
        top, left = max(0, y0 - light.reach), max(0, x0 - light.reach)
        wide = top, left, min(axes[0].length, y1 + light.reach), min(axes[1].length, x1 + light.reach)
        seen, _ = light.apply(self._scaled(axes, wide), self.mean)
        return np.asarray(seen)[y0 - top : y1 - top, x0 - left : x1 - left]

    def _scaled(self, axes: Axes, box: Box) -> PIL.Image.Image:
        (top, bottom), (left, right) = axes[0].find_source_span(box[0], box[2]), axes[1].find_source_span(box[1], box[3])
        # Pillow weighs pixels beyond its box like any others, so that a part is the part of the whole, but for rounding.
        size = box[3] - box[1], box[2] - box[0]
        return self.image.resize(size, PIL.Image.Resampling.BILINEAR, box=(left, top, right, bottom))


def _mean(image: PIL.Image.Image) -> Color:
    levels = np.array(image.histogram()).reshape(3, 256)
    red, green, blue = np.rint(levels @ np.arange(256) / levels[0].sum()).astype(int).tolist()
    return red, green, blue


def _extent(mask: BoolArray, along: int) -> tuple[int, int]:
    """The first row (or column) that has any of a mask, and the one after the last."""
    places = np.flatnonzero(mask.any(axis=1 - along))
    return int(places[0]), int(places[-1]) + 1


class CropCache:
    """Opens the subjects of an archive, and keeps those used last within ``memory`` bytes.

    Threads may share one.
    """

    def __init__(self, archive: Archive, masks: Mapping[str, PseudoMask], memory: int) -> None:
        self._archive, self._masks, self._memory = archive, masks, memory
        self._kept: OrderedDict[str, ObjectCrop] = OrderedDict()
        self._used, self._lock = 0, Lock()

    def open(self, id: str) -> ObjectCrop:  # noqa: A002 -- the word the noun uses
        """Return the image of an id; raises what ``ObjectCrop`` does."""
        with self._lock:
            if id in self._kept:
                self._kept.move_to_end(id)
                return self._kept[id]
        subject = ObjectCrop.of(self._archive, self._masks[id])
        with self._lock:
            self._keep(id, subject)
        return subject

    def _keep(self, id_: str, subject: ObjectCrop) -> None:
        self._used += 0 if id_ in self._kept else subject.memory
        self._kept[id_] = subject
        while self._used > self._memory:
            self._used -= self._kept.popitem(last=False)[1].memory
