"""One thing, one mask: the weaker of two detections that cover the same pixels goes."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from annofree.structures import Detections

__all__ = ["suppressed"]


def suppressed(detections: Detections, *, within: float = 1.0, across: float = 1.0) -> Detections:
    """Go from the strongest down and drop what overlaps a kept one too much, by mask IoU.

    ``within`` is the most that two of one class may overlap, ``across`` that two of different classes may; 1 allows all.

    >>> full, half = np.ones((2, 2), bool), np.array([[1, 1], [0, 0]], bool)
    >>> both = Detections.from_masks(np.stack([full, half]), [0, 1], [0.9, 0.8], ["cat", "dog"])
    >>> suppressed(both, within=0.4).labels, suppressed(both, across=0.4).labels
    (['cat', 'dog'], ['cat'])
    """
    if not len(detections) or min(within, across) >= 1:
        return detections
    overlap = coco_mask.iou(list(detections.rles), list(detections.rles), [0] * len(detections))
    same = detections.class_ids[:, None] == detections.class_ids[None]
    clash = overlap > np.where(same, within, across)
    kept: list[int] = []
    for candidate in range(len(detections)):
        if not clash[candidate, kept].any():
            kept.append(candidate)
    return detections[np.array(kept)]
