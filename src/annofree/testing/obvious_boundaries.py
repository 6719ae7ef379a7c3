"""Precision and recall of edges pixel by pixel and pair by pair: a slow reference for ``evaluation.metrics.boundaries``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from annofree.structures import BoolArray

__all__ = ["count_obvious_edges", "list_obvious_edges"]


def list_obvious_edges(labels: npt.NDArray[np.integer]) -> list[tuple[int, int]]:
    """Rows and columns of the pixels of a map (H, W) whose right or lower neighbor has another number."""
    height, width = labels.shape
    found = []
    for y in range(height):
        for x in range(width):
            beside = [(y, x + 1)] * (x + 1 < width) + [(y + 1, x)] * (y + 1 < height)
            if any(labels[y, x] != labels[place] for place in beside):
                found.append((y, x))
    return found


def count_obvious_edges(
    own: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]], tolerance: float, ignored: BoolArray
) -> tuple[int, int]:
    """How many of one's ``own`` edges have another within ``tolerance`` px, of how many; none of either ``ignored``."""
    own, others = ([place for place in places if not ignored[place]] for places in (own, others))
    met = [place for place in own if any(math.dist(place, other) <= tolerance for other in others)]
    return len(met), len(own)
