"""Rules of discovery against twins written cell by cell from their papers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.linalg import eigh
from scipy.ndimage import label

from annofree.fragments.discovery import find_by_attention, find_by_lost, find_by_spectrum, find_by_tokencut

Array = np.ndarray[Any, Any]


def draw_keys(seed: int) -> Array:
    rng = np.random.default_rng(seed)
    keys = np.broadcast_to(rng.standard_normal(6)[:, None, None], (6, 14, 17)).copy()
    y, x = rng.integers(1, 8, 2)
    keys[:, y : y + 5, x : x + 6] = rng.standard_normal(6)[:, None, None]
    return (keys + 0.4 * rng.standard_normal(keys.shape)).astype(np.float32)


def lost_slowly(keys: Array) -> Array:
    cells, grid = keys.reshape(len(keys), -1).T.astype(np.float64), keys.shape[1:]
    degrees = [sum(1 for j in range(len(cells)) if j != i and cells[i] @ cells[j] > 0) for i in range(len(cells))]
    order = sorted(range(len(cells)), key=lambda i: (degrees[i], i))[:100]
    votes = sum(np.array([cells[i] @ c for c in cells]) for i in order if cells[order[0]] @ cells[i] > 0)
    pieces = label(np.asarray(votes).reshape(grid) > 0)[0]
    seed = pieces.ravel()[order[0]]
    return pieces == seed if seed else np.zeros(grid, bool)


@pytest.mark.parametrize("seed", range(5))
def test_lost(seed: int) -> None:
    keys = draw_keys(seed)
    found = find_by_lost(keys)
    assert found.any() and (found == lost_slowly(keys)).all()


@pytest.mark.parametrize("seed", range(5))
def test_spectrum(seed: int) -> None:
    keys = draw_keys(seed)
    cells, grid = keys.reshape(len(keys), -1).T.astype(np.float64), keys.shape[1:]
    units = cells / np.linalg.norm(cells, axis=1, keepdims=True)
    weights = np.clip(units @ units.T, 0, None)
    weights /= weights.max()
    degrees = np.diag(weights.sum(1))
    vector = eigh(degrees - weights, degrees, subset_by_index=[1, 1])[1][:, 0]
    sides = [(sign * vector > 0).reshape(grid) for sign in (1, -1)]
    small = min(sides, key=np.sum)  # a side of more than half gives way, so the sign does not matter
    pieces = label(small)[0]
    assert (find_by_spectrum(keys) == (pieces == np.bincount(pieces.ravel())[1:].argmax() + 1)).all()


@pytest.mark.parametrize("seed", range(5))
def test_tokencut(seed: int) -> None:
    keys = draw_keys(seed)
    cells, grid = keys.reshape(len(keys), -1).T.astype(np.float64), keys.shape[1:]
    units = cells / np.linalg.norm(cells, axis=1, keepdims=True)
    weights = np.where(units @ units.T > 0.2, 1.0, 1e-5)
    degrees = np.diag(weights.sum(1))
    vector = eigh(degrees - weights, degrees, subset_by_index=[1, 1])[1][:, 0]
    strongest = np.abs(vector).argmax()
    side = vector > vector.mean()
    side = side if side[strongest] else ~side
    pieces = label(side.reshape(grid))[0]
    assert (find_by_tokencut(keys) == (pieces == pieces.ravel()[strongest])).all()


def test_attention_keeps_the_largest_piece_of_sixty_percent() -> None:
    attention = np.zeros((6, 3, 5), np.float32)
    attention[4] = [[0, 0, 0, 0, 2], [3, 3, 0, 0, 0], [0, 0, 0, 0, 0]]
    found = find_by_attention(attention)
    assert found.astype(int).tolist() == [[0, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert find_by_attention(attention[4:5]).sum() == 2, "of fewer heads, the last"


def test_nothing_to_find() -> None:
    flat = np.ones((3, 4, 5), np.float32)
    assert not find_by_tokencut(flat).any()
    assert find_by_lost(flat).all() and find_by_attention(flat).any()
