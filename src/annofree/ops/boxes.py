"""Boxes: x0 y0 x1 y1 in float pixels, end-exclusive."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["compute_centers", "compute_tight_boxes"]

FloatArray = npt.NDArray[np.float32]


def compute_tight_boxes(masks: npt.NDArray[np.bool_]) -> FloatArray:
    """The tight box (N, 4) of each mask (N, H, W); zeros for an empty one.

    >>> compute_tight_boxes(np.array([[[0, 1, 1], [0, 1, 0]], [[0, 0, 0], [0, 0, 0]]], bool)).tolist()
    [[1.0, 0.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]]
    """
    rows, columns = np.any(masks, axis=2), np.any(masks, axis=1)
    x0, y0 = columns.argmax(1), rows.argmax(1)
    x1, y1 = masks.shape[2] - columns[:, ::-1].argmax(1), masks.shape[1] - rows[:, ::-1].argmax(1)
    boxes: FloatArray = (np.stack([x0, y0, x1, y1], 1) * np.any(rows, axis=1, keepdims=True)).astype(np.float32)
    return boxes


def compute_centers(boxes: FloatArray) -> FloatArray:
    """The center x y (N, 2) of each box (N, 4)."""
    middle: FloatArray = (boxes[:, :2] + boxes[:, 2:]) / np.float32(2)
    return middle
