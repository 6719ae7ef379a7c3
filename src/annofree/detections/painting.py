"""From scores to a label map at full resolution, and from a label map to detections.

K classes, h w cells, H W pixels.  Scores of 500 classes at full resolution are a gigabyte: classes are drawn a few at a
time and the best so far is kept, with the same result but for the rounding of scores: where two tie, either may win.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from annofree.errors import InputError
from annofree.ops.grids import resize_maps
from annofree.ops.regions import Connectivity, label_components
from annofree.ops.rle import decode_rle
from annofree.structures import BoolArray, Detections, FloatArray, LabelMap

__all__ = [
    "Draw",
    "Painted",
    "average_over_regions",
    "build_label_map",
    "compute_confidence",
    "convert_label_map",
    "convert_regions",
    "find_strongest",
    "number_classes",
    "number_components",
    "resize_to_pixels",
]

_AT_ONCE = 2**25  # values in memory, 128 MiB
_SURE = 0.98  # no mask is surer than that; ten doubtful ones may outweigh it


Draw = Callable[[slice], Tensor]
"""Returns the scores (k, H, W) of a slice of the classes."""


class Painted(NamedTuple):
    """The strongest class of each pixel: ``best`` (H, W) int64, and its score ``values`` (H, W)."""

    best: Tensor
    values: Tensor


def resize_to_pixels(maps: Tensor, size: tuple[int, int], window: tuple[int, int] | None = None) -> Tensor:
    """Resize maps (K, h, w), whose cells cover ``window`` (H', W') from the top left or else all of ``size``, to (K, *size)."""
    return resize_maps(maps, window or size)[..., : size[0], : size[1]]


def find_strongest(draw: Draw, count: int, size: tuple[int, int], *, at_once: int = _AT_ONCE) -> Painted:
    """Find for each pixel the class with the highest score among ``count``, of equals the first.

    No more than ``at_once`` scores are drawn at a time, but always one class.

    >>> scores = torch.tensor([0.1, 0.9, 0.9]).view(3, 1, 1)
    >>> find_strongest(lambda part: scores[part], 3, (1, 1), at_once=1).best.tolist()
    [[1]]
    """
    first, *rest = _parts(count, size, at_once)
    values, best = draw(first).max(0)
    for part in rest:
        high, row = draw(part).max(0)
        better = high > values
        best, values = torch.where(better, row + part.start, best), torch.where(better, high, values)
    return Painted(best, values)


def compute_confidence(
    draw: Draw, count: int, size: tuple[int, int], values: Tensor, scale: float, *, at_once: int = _AT_ONCE
) -> Tensor:
    """The probability (H, W) of classes scored ``values`` (H, W) in the softmax of ``scale`` times all ``count`` scores.

    >>> scores = torch.zeros(4, 1, 1)
    >>> compute_confidence(lambda part: scores[part], 4, (1, 1), torch.zeros(1, 1), 100.0, at_once=2).tolist()
    [[0.25]]
    """
    first, *rest = _parts(count, size, at_once)
    total = torch.logsumexp(draw(first) * scale, 0)
    for part in rest:
        total = torch.logaddexp(total, torch.logsumexp(draw(part) * scale, 0))
    return (values * scale - total).exp()


def _parts(count: int, size: tuple[int, int], at_once: int) -> list[slice]:
    step = max(1, at_once // (size[0] * size[1]))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def number_components(labels: LabelMap, connectivity: Connectivity = 8) -> tuple[Tensor, list[int]]:
    """Number the connected regions of each class, (H, W) int64 from 1, 0 for background; and the class of each region."""
    named = torch.from_numpy(labels.labels.astype(np.int64) + 1)
    if labels.background is not None:
        named[named == labels.background + 1] = 0
    regions = label_components(named, connectivity)
    flat = regions.flatten()
    owner = torch.zeros(int(flat.max()) + 1, dtype=torch.long).index_copy_(0, flat, named.flatten())
    return regions, (owner[1:] - 1).tolist()


def number_classes(labels: LabelMap) -> tuple[Tensor, list[int]]:
    """Number the classes that have pixels, (H, W) int64 from 1, 0 for background; and the class of each number.

    All pixels of a class are one proposal, as where ZUTIS takes MaskCLIP for an instance baseline.
    """
    present = [int(k) for k in np.unique(labels.labels) if k >= 0 and k != labels.background]
    number = np.zeros(len(labels.names) + 1, np.int64)
    number[present] = np.arange(1, len(present) + 1)
    return torch.from_numpy(number[labels.labels]), present  # void is -1: the last entry, which stays 0


def average_over_regions(regions: Tensor, count: int, maps: Sequence[Tensor]) -> FloatArray:
    """The mean (count, M) of M maps (H, W) over each of the regions (H, W) 1 .. count."""
    numbers, numbered = np.arange(1, count + 1), regions.numpy()
    means = [ndimage.mean(m.cpu().numpy(), numbered, numbers) for m in maps]
    return np.stack(means, 1).astype(np.float32).reshape(count, len(maps))


def convert_regions(
    regions: Tensor, owner: Sequence[int], scores: FloatArray, names: Sequence[str], *, min_area: int = 0, most: int = 100
) -> Detections:
    """Turn the regions (H, W) 1 .. N into detections of the classes ``owner`` (N) into ``names``, scored by ``scores`` (N).

    Regions under ``min_area`` px are left out, then all but the ``most`` strongest.
    """
    numbered, numbers = regions.numpy(), np.arange(1, len(owner) + 1)
    areas = np.bincount(numbered.ravel(), minlength=len(owner) + 1)[1:]
    order = np.argsort(-scores, kind="stable")
    kept = order[areas[order] >= min_area][:most]
    masks: BoolArray = numbered[None] == numbers[kept][:, None, None]
    return Detections.from_masks(masks, np.asarray(owner, np.int64)[kept], scores[kept], names)


def convert_label_map(
    labels: LabelMap, values: Tensor, names: Sequence[str], connectivity: Connectivity, *, min_area: int = 0, most: int = 100
) -> Detections:
    """Take the connected regions of a label map for instances of ``names``, each scored by the mean of ``values`` (H, W) there.

    The names are the map's own, or those without the background that stands before them.

    >>> two = LabelMap(np.array([[1, 0, 1]], np.int32), ("background", "dog"), 0)
    >>> found = convert_label_map(two, torch.tensor([[0.5, 0.0, 0.75]]), ("dog",), 4)
    >>> found.scores.tolist(), found.labels.tolist()
    ([0.75, 0.5], ['dog', 'dog'])
    """
    regions, owner = number_components(labels, connectivity)
    scores = average_over_regions(regions, len(owner), [values])[:, 0]
    first = len(labels.names) - len(names)
    return convert_regions(regions, [k - first for k in owner], scores, names, min_area=min_area, most=most)


def build_label_map(found: Detections, background: int, threshold: float = 0.5) -> LabelMap:
    """The likeliest name of each pixel, by scored masks that may overlap and may be wrong.

    A pixel has a name with the chance that one of the masks of that name on it, at least, is right, each by its score and by
    itself (noisy-or); where no name has ``threshold``, it is the entry ``background`` of the names.  Raises InputError for a
    threshold outside of 0 .. 1.

    >>> left, all_of_it = np.array([[1, 0]], bool), np.array([[1, 1]], bool)
    >>> masks, names = np.stack([all_of_it, left, left]), ["background", "dog", "cat"]
    >>> found = Detections.from_masks(masks, [1, 2, 2], [0.6, 0.5, 0.4], names)
    >>> build_label_map(found, background=0).labels.tolist()
    [[2, 1]]
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"expected a threshold from 0 to 1, got {threshold}")
    labels = np.full(found.size, background, np.int32)
    # logs of the chance that none is right: the least wins
    least = np.full(found.size, np.log1p(-min(threshold, _SURE)), np.float32)
    for k in np.unique(found.class_ids).tolist():
        against = np.zeros(found.size, np.float32)
        for i in np.flatnonzero(found.class_ids == k).tolist():
            against += np.float32(np.log1p(-min(float(found.scores[i]), _SURE))) * decode_rle(found.rles[i])
        wins = against < least
        labels[wins], least[wins] = k, against[wins]
    return LabelMap(labels, found.names, background)
