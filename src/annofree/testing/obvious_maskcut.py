"""MaskCut step by step, as its paper and facts about its code have it: dense generalized eigenvectors, a cell a row.

A slow reference, to test and benchmark the fast cuts beside.  Cells of what was found keep their rows, of features 0, which are
alike with nothing.  The sign of a vector, which a solver leaves open, is that of its strongest entry.  N cells, D channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from scipy.ndimage import label

from annofree.structures import BoolArray

__all__ = ["cut_obvious_masks", "solve_obvious_cut"]

_EPS = 1e-5

Floats = npt.NDArray[np.floating[Any]]


def solve_obvious_cut(features: Floats, painted: BoolArray, tau: float) -> Floats:
    """The second smallest solution of the dense problem for ``features`` (N, D), those of ``painted`` (N) cells 0; (N)."""
    features = np.where(painted[:, None], 0, features)
    units = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    weights = np.where(units @ units.T > tau, 1.0, _EPS).astype(np.float64)
    degrees = np.diag(weights.sum(1))
    vector: Floats = eigh(degrees - weights, degrees, subset_by_index=[1, 2])[1][:, 0]
    return vector if vector[np.abs(vector).argmax()] > 0 else -vector


def cut_obvious_masks(keys: Floats, masks: int, tau: float, repeat: float, small: float) -> list[BoolArray]:
    """The masks (h, w) of all rounds for ``keys`` (D, h, w), empty where a round finds none; each round solves anew.

    ``masks`` rounds; ``tau``, ``repeat`` and ``small`` as ``MaskCutSettings`` has them.
    """
    grid = keys.shape[1:]
    painted, found = np.zeros(grid, bool), [np.zeros(grid, bool)]
    for number in range(masks):
        vector = solve_obvious_cut(keys.reshape(len(keys), -1).T, painted.ravel(), tau).reshape(grid)
        side = vector > vector.mean()
        corners = sum(bool(side[y, x]) for y in (0, -1) for x in (0, -1))
        if corners >= 3:
            side, vector = ~side, -vector
        # of equals, as painted cells are, the first
        seed = np.unravel_index((vector >= vector.max() - 1e-6 * np.abs(vector).max()).argmax(), grid)
        pieces = label(side)[0]
        mask = np.asarray(pieces == pieces[seed] if side[seed] else np.zeros(grid, bool), bool)
        union = (mask | found[-1]).sum()
        iou = (mask & found[-1]).sum() / union if union else 0
        if number and (iou > repeat or mask.mean() <= small):
            mask = np.zeros(grid, bool)
        painted |= mask
        found.append(mask)
    return found[1:]
