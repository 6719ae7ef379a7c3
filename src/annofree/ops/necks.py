"""Masks cut where they are narrow: what touches is joined by a neck, and the distance to the border falls there."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import expand_labels, watershed

__all__ = ["cut_at_necks"]

BoolArray = npt.NDArray[np.bool_]

_LONGEST = 512  # px of a mask's box; necks of larger ones are looked for at every so-many-th px


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
    place = ndimage.find_objects(mask.view(np.uint8))[0]
    whole = mask[place]
    step = -(-max(whole.shape) // _LONGEST)
    part = np.pad(whole[::step, ::step], 1)
    distance = ndimage.distance_transform_edt(part)
    lowered = reconstruction(distance - depth * distance.max(), distance)  # what is no deeper than that is filled
    peaks, count = label(local_maxima(lowered), connectivity=2, return_num=True)
    if count < 2:
        return []
    basins = watershed(-distance, peaks, mask=part)
    if step > 1:  # a px belongs to the basin that is nearest to its cell
        basins = expand_labels(basins, sum(part.shape))
    drawn = basins[1:-1, 1:-1].repeat(step, 0).repeat(step, 1)[: whole.shape[0], : whole.shape[1]]
    numbered = np.zeros(mask.shape, np.int32)
    numbered[place] = np.where(whole, drawn, 0)
    return [numbered == number for number in range(1, count + 1)]
