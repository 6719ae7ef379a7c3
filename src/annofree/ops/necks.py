"""Masks cut where they are narrow: what touches is joined by a neck, and the distance to the border falls there."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from annofree.structures import BoolArray

__all__ = ["cut_at_necks"]


def cut_at_necks(mask: BoolArray, depth: float) -> list[BoolArray]:
    """Cut a mask (H, W) at its necks into pieces (H, W) that together are the mask; none of a mask that has no neck.

    The watershed of the distance to the border (Beucher and Lantuéjoul, 1979): a piece begins where, on every way to a point
    that is farther from the border, the distance falls by more than ``depth`` times the largest, 0 .. 1.

    >>> two = np.array([[1, 1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1, 1]], bool)
    >>> [piece.sum(0).tolist() for piece in cut_at_necks(two, 0.3)]
    [[3, 3, 3, 1, 0, 0, 0], [0, 0, 0, 0, 3, 3, 3]]
    >>> cut_at_necks(two[:, :3], 0.3)
    []
    """
    if not mask.any():
        return []
    places = ndimage.find_objects(mask.view(np.uint8))
    part = np.pad(mask[places[0]], 1)
    distance = ndimage.distance_transform_edt(part)
    lowered = reconstruction(distance - depth * distance.max(), distance)  # what is no deeper than that is filled
    peaks, count = label(local_maxima(lowered), connectivity=2, return_num=True)
    if count < 2:
        return []
    numbered = np.zeros(mask.shape, np.int32)
    numbered[places[0]] = watershed(-distance, peaks, mask=part)[1:-1, 1:-1]
    return [numbered == number for number in range(1, count + 1)]
