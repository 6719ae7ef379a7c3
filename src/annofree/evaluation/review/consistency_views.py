"""Changed views of an image, and its instances brought back from them, so that two answers can be held against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image

from annofree.evaluation.review.risk import Part, measure_disagreement
from annofree.formats.annotations import Annotation
from annofree.ops.rle import decode_rle
from annofree.structures import BoolArray, Detections, Image

__all__ = ["VIEWS", "ConsistencyView", "combine_views"]

Size = tuple[int, int]
Window = tuple[slice, slice]

_MOVED = 12  # an image moves by a twelfth of its sides
_SMALLER = 0.75


@dataclass(frozen=True)
class ConsistencyView:
    """One changed view: ``about`` in words, ``look`` makes it, ``back`` brings masks (N, h, w) back to the image's size.

    ``window`` is the part of an image of a size (H, W) that the view shows.
    """

    about: str
    look: Callable[[Image], Image]
    back: Callable[[BoolArray, Size], BoolArray]
    window: Callable[[Size], Window] = lambda size: (slice(0, size[0]), slice(0, size[1]))

    def map_back(self, found: Detections, size: Size) -> list[Annotation]:
        """Bring what was found in the view of an image of a size back to the image; what falls away is left out."""
        masks = self.back(found.masks, size)
        rows = zip(found.labels.tolist(), masks, found.scores.tolist(), strict=True)
        return [Annotation.of_mask(name, mask, score) for name, mask, score in rows if mask.any()]

    def compare(self, things: Sequence[Annotation], again: Sequence[Annotation], size: Size) -> Part:
        """Hold the answer for an image against the one brought back from its view, where both can see."""
        return measure_disagreement(_shown(things, self.window(size), size), again, self.about)


def _shown(things: Sequence[Annotation], window: Window, size: Size) -> list[Annotation]:
    if window == (slice(0, size[0]), slice(0, size[1])):
        return list(things)
    seen = np.zeros(size, bool)
    seen[window] = True
    cut = [(t, decode_rle(t.rle) & seen) for t in things if t.rle is not None]
    return [Annotation.of_mask(t.name, mask, t.score, t.crowd) for t, mask in cut if mask.any()]


def _mirrored(image: Image) -> Image:
    return Image(np.ascontiguousarray(image.pixels[:, ::-1]), image.id)


def _lower_right(size: Size) -> Window:
    return slice(size[0] // _MOVED, size[0]), slice(size[1] // _MOVED, size[1])


def _moved(image: Image) -> Image:
    return Image(np.ascontiguousarray(image.pixels[_lower_right(image.size)]), image.id)


def _moved_back(masks: BoolArray, size: Size) -> BoolArray:
    whole = np.zeros((len(masks), *size), bool)
    whole[(slice(None), *_lower_right(size))] = masks
    return whole


def _shrunk(image: Image) -> Image:
    height, width = (max(1, round(_SMALLER * side)) for side in image.size)
    small = PIL.Image.fromarray(image.pixels).resize((width, height), PIL.Image.Resampling.BICUBIC)
    return Image(np.asarray(small), image.id)


def _enlarged(masks: BoolArray, size: Size) -> BoolArray:
    rows, columns = ((2 * np.arange(n) + 1) * small // (2 * n) for n, small in zip(size, masks.shape[1:], strict=True))
    return masks[:, rows[:, None], columns]


VIEWS: Mapping[str, ConsistencyView] = {
    "flip": ConsistencyView("in the mirror", _mirrored, lambda masks, size: np.ascontiguousarray(masks[:, :, ::-1])),
    "shift": ConsistencyView("when a twelfth is cut off at the top and the left", _moved, _moved_back, _lower_right),
    "scale": ConsistencyView("at three quarters of the size", _shrunk, _enlarged),
}
"""The views by name; each is mild enough to leave the annotation unchanged."""


def combine_views(parts: Mapping[str, Part]) -> Part:
    """Combine the disagreement of several views: the mean, with the reason of the worst."""
    worst = max(parts.values(), key=lambda part: part.value)
    return Part(float(np.mean([part.value for part in parts.values()])), worst.reason)
