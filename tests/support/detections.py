"""Detections to test with: given ones, and any by hypothesis."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from annofree.structures import Detections

__all__ = ["NAMES", "SIZE", "detections", "some"]

SIZE, NAMES = (6, 8), ("dog", "cat", "bird")


def some(*class_ids: int, names: tuple[str, ...] = NAMES, seed: int = 0) -> Detections:
    """Detections with a mask of their own each, whose k-th has the score (k + 1) / 16 below 1."""
    masks = np.random.default_rng(seed).random((len(class_ids), *SIZE)) < 0.4
    masks[:, 0, 0] = True
    return Detections.from_masks(masks, class_ids, [1 - (k + 1) / 16 for k in range(len(class_ids))], names)


@st.composite
def detections(draw: st.DrawFn, size: tuple[int, int] | None = None, least: int = 0) -> Detections:
    """Any detections, in any order, with masks that may be equal and boxes that need not be tight."""
    height, width = size or (draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    count, rng = draw(st.integers(least, 6)), np.random.default_rng(draw(st.integers(0, 10**6)))
    names = draw(st.lists(st.sampled_from(["dog", "cat", "a bird", "橙子"]), min_size=1, unique=True))
    masks = rng.random((count, height, width)) < 0.5
    masks[:, rng.integers(height), rng.integers(width)] = True
    scores = rng.integers(0, 5, count) / 4 if draw(st.booleans()) else rng.random(count)
    found = Detections.from_masks(masks, rng.integers(0, len(names), count), scores.astype(np.float32), names)
    boxes = found.boxes + rng.random((count, 4), np.float32) * np.array([0, 0, 1, 1], np.float32)
    return replace(found, boxes=boxes.astype(np.float32))[rng.permutation(count)]
