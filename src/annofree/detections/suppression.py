"""One thing, one mask: the weaker of two detections that cover the same pixels goes."""

from __future__ import annotations

import numpy as np

from annofree.ops.rle import rle_iou, rle_part
from annofree.structures import Detections

__all__ = ["suppressed", "unclaimed"]


def suppressed(detections: Detections, *, within: float = 1.0, across: float = 1.0, inside: float = 1.0) -> Detections:
    """Go from the strongest down and drop what overlaps a kept one too much.

    ``within`` is the most mask IoU that two of one class may have, ``across`` that two of different classes may; ``inside`` is
    the most part of a mask that may lie in a stronger one of its class, such as a leg in its elephant.  1 allows all.

    >>> full, half = np.ones((2, 2), bool), np.array([[1, 1], [0, 0]], bool)
    >>> both = Detections.from_masks(np.stack([full, half]), [0, 1], [0.9, 0.8], ["cat", "dog"])
    >>> suppressed(both, within=0.4).labels.tolist(), suppressed(both, across=0.4).labels.tolist()
    (['cat', 'dog'], ['cat'])
    >>> two = Detections.from_masks(np.stack([full, half]), [0, 0], [0.9, 0.8], ["cat"])
    >>> len(suppressed(two, within=0.6)), len(suppressed(two, inside=0.9))
    (2, 1)
    """
    if not len(detections) or min(within, across, inside) >= 1:
        return detections
    rles, count = detections.rles, len(detections)
    same = detections.class_ids[:, None] == detections.class_ids[None]
    clash = rle_iou(rles, rles) > np.where(same, within, across)
    if inside < 1:
        clash |= same & (rle_part(rles, rles) > inside)
    kept: list[int] = []
    for candidate in range(count):
        if not clash[candidate, kept].any():
            kept.append(candidate)
    return detections[np.array(kept)]


def unclaimed(detections: Detections, others: Detections, above: float) -> Detections:
    """Drop what a stronger one of ``others`` covers by a mask IoU above ``above``; of equal scores the detection stays.

    >>> full = np.ones((1, 2, 2), bool)
    >>> cat, wall = Detections.from_masks(full, [0], [0.5], ["cat"]), Detections.from_masks(full, [0], [0.6], ["wall"])
    >>> len(unclaimed(cat, wall, 0.5)), len(unclaimed(wall, cat, 0.5))
    (0, 1)
    """
    if not len(detections) or not len(others):
        return detections
    covered = rle_iou(detections.rles, others.rles) > above
    return detections[np.flatnonzero(~(covered & (others.scores[None] > detections.scores[:, None])).any(1))]
