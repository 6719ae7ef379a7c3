"""The same answer, computed two ways: in batches of other sizes, from encodings that were kept, after a round trip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from annofree.ops.rle import compute_rle_area, compute_rle_box, decode_rle
from annofree.structures import Detections
from annofree.testing.tolerances import Depth, assert_close, assert_same_masks

__all__ = ["assert_same_detections", "assert_same_rows"]

Row = Mapping[str, Any]


def assert_same_detections(
    actual: Detections, expected: Detections, *, dtype: torch.dtype = torch.float32, depth: Depth = "network"
) -> None:
    """Raise AssertionError unless both are the same instances: classes, masks, and scores within the table.

    Where scores are equal up to rounding, their order may be another.
    """
    assert actual.names == expected.names and actual.size == expected.size
    assert_same_rows(actual.to_coco(), expected.to_coco(), dtype=dtype, depth=depth)


def assert_same_rows(
    actual: Sequence[Row], expected: Sequence[Row], *, dtype: torch.dtype = torch.float32, depth: Depth = "network"
) -> None:
    """Raise AssertionError unless two lists of COCO annotations are the same instances, as ``assert_same_detections``."""
    kinds = [sorted((row["image_id"], row["category_id"]) for row in rows) for rows in (actual, expected)]
    assert kinds[0] == kinds[1]
    for kind in dict.fromkeys(kinds[0]):
        ours, theirs = ([row for row in rows if (row["image_id"], row["category_id"]) == kind] for rows in (actual, expected))
        masks, others = _masks(ours), _masks(theirs)
        shared = np.einsum("ahw,bhw->ab", masks, others, dtype=np.float64)
        overlaps = shared / (masks.sum((1, 2))[:, None] + others.sum((1, 2))[None] - shared)
        scores, there = (np.array([row["score"] for row in rows]) for rows in (ours, theirs))
        # of two instances with one mask, those with like scores belong together
        first, second = linear_sum_assignment(overlaps - 0.01 * np.abs(scores[:, None] - there[None]), maximize=True)
        assert_same_masks(masks[first], others[second])
        assert_close(scores[first], there[second], dtype=dtype, depth=depth, message=f"scores of {kind}")
    for row in (*actual, *expected):
        x0, y0, x1, y1 = compute_rle_box(row["segmentation"])
        assert row["area"] == compute_rle_area(row["segmentation"]), "of the mask"
        assert row["bbox"] == [x0, y0, x1 - x0, y1 - y0], "around the mask"
    for rows in (actual, expected):
        per_image = {row["image_id"]: [r["score"] for r in rows if r["image_id"] == row["image_id"]] for row in rows}
        assert all(scores == sorted(scores, reverse=True) for scores in per_image.values()), "strongest first"


def _masks(rows: Sequence[Row]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.stack([decode_rle(row["segmentation"]) for row in rows])
