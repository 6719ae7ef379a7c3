"""Which pseudo-masks are worth learning from, judged by their looks alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from skimage.measure import label

from annofree.ops.rle import decode_rle
from annofree.retrieval.archive import PseudoMask
from annofree.structures import BoolArray

__all__ = ["choose_masks", "measure_border", "measure_largest_part", "name_strict_looks"]


def choose_masks(
    masks: Mapping[str, PseudoMask], *, min_quality: float = 0.0, min_part: float = 0.0, max_border: float = 1.0
) -> dict[str, PseudoMask]:
    """Masks that are good enough, by id, in their order.

    A mask has to have the ``min_quality``, a share ``min_part`` of it in its largest connected part, and cover a share of at
    most ``max_border`` of its image's border: objects are whole and inside, ground is in pieces and reaches the edges (ours).
    """
    found = {id_: mask for id_, mask in masks.items() if mask.quality >= min_quality}
    if min_part <= 0 and max_border >= 1:
        return found
    return {id_: mask for id_, mask in found.items() if _is_whole(decode_rle(mask.rle), min_part, max_border)}


def name_strict_looks(masks: Mapping[str, PseudoMask], looks: Mapping[str, float]) -> str:
    """Which settings of ``choose_masks`` leave out all masks, with their values: each that does so alone, else all that do.

    >>> from annofree.ops.rle import encode_rle
    >>> thin = PseudoMask("a", encode_rle(np.eye(4, dtype=bool)), 0.9)
    >>> name_strict_looks({"a": thin}, {"min_quality": 0.5, "min_part": 0.8, "max_border": 1.0})
    'min_part 0.8'
    """
    kept = {name: len(choose_masks(masks, **{name: value})) for name, value in looks.items()}
    strict = [name for name in looks if not kept[name]] or [name for name in looks if kept[name] < len(masks)]
    return " and ".join(f"{name} {looks[name]:g}" for name in strict)


def _is_whole(mask: BoolArray, min_part: float, max_border: float) -> bool:
    return measure_border(mask) <= max_border and measure_largest_part(mask) >= min_part


def measure_largest_part(mask: BoolArray) -> float:
    """The share of a mask (H, W) that its largest 4-connected part has; 0 for an empty one.

    >>> measure_largest_part(np.array([[True, True, False, True]])).__round__(3)
    0.667
    """
    areas = np.bincount(np.asarray(label(mask, connectivity=1)).ravel())[1:]
    return float(areas.max() / areas.sum()) if len(areas) else 0.0


def measure_border(mask: BoolArray) -> float:
    """The share of the border of an image that its mask (H, W) covers; corners count twice.

    >>> measure_border(np.array([[True, True], [False, False]]))
    0.5
    """
    return float(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean())
