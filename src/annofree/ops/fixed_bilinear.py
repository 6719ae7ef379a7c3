"""Bilinear resizing of gray levels in whole numbers, as OpenCV does it: weights of 11 bits, sums cut twice, then rounded.

    columns: s = a (2048 - u) + b u      rows: ((s (2048 - v) >> 4 >> 16) + (t v >> 4 >> 16) + 2) >> 2

No antialiasing: each pixel is made of the two nearest columns of the two nearest rows.  H W px before, h w after, C channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["resize_levels"]

Levels = npt.NDArray[np.uint8]
Whole = npt.NDArray[np.int64]

_ONE = 2**11


def resize_levels(pixels: Levels, size: tuple[int, int]) -> Levels:
    """Resize gray levels (H, W, C) to (*size, C); half the size both ways is the mean of four px, as OpenCV has it.

    >>> resize_levels(np.array([[[0], [100]]], np.uint8), (1, 4))[0, :, 0].tolist()
    [0, 25, 75, 100]
    """
    height, width = pixels.shape[:2]
    if (height, width) == size:
        return pixels
    levels = pixels.astype(np.int64)
    if (height, width) == (2 * size[0], 2 * size[1]):
        return np.asarray((levels.reshape(size[0], 2, size[1], 2, -1).sum((1, 3)) + 2) >> 2, np.uint8)
    left, right, across = _find_neighbors(width, size[1], ends=True)
    above, below, down = _find_neighbors(height, size[0], ends=False)
    sums = levels[:, left] * across[:, 0, None] + levels[:, right] * across[:, 1, None]
    high, low = (sums[rows] >> 4 for rows in (above, below))
    mixed = (high * down[:, 0, None, None] >> 16) + (low * down[:, 1, None, None] >> 16)
    return np.asarray((mixed + 2 >> 2).clip(0, 255), np.uint8)


def _find_neighbors(length: int, count: int, *, ends: bool) -> tuple[Whole, Whole, npt.NDArray[Any]]:
    """The two of ``length`` px that each of ``count`` is made of, and their weights (count, 2) in 2 ** -11.

    Beyond an end both are the last px there; with ``ends`` the first then counts for all, as it does along a row.
    """
    places = ((np.arange(count) + 0.5) * (length / count) - 0.5).astype(np.float32)
    first = np.floor(places).astype(np.int64)
    share = places - first.astype(np.float32)
    if ends:
        share[(first < 0) | (first >= length - 1)] = 0
    weights = np.stack([np.rint((np.float32(1) - share) * _ONE), np.rint(share * _ONE)], 1).astype(np.int64)
    return first.clip(0, length - 1), (first + 1).clip(0, length - 1), weights
