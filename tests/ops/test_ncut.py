"""The cut against the dense generalised eigenproblem that TokenCut solves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import eigh

from annofree.ops.ncut import build_affinity, compute_ncut, compute_second_eigenvector, orient_vector
from annofree.structures import FloatArray
from annofree.testing.tolerances import assert_close


def features(count: int, seed: int = 0, kinds: int = 2) -> FloatArray:
    """Two or more kinds of cells with some noise; the first kind is the largest."""
    rng = np.random.default_rng(seed)
    kind = np.maximum(np.arange(count) % (2 * kinds) - kinds, 0)
    cells = np.eye(16)[kind] * 4 + 0.7 + rng.standard_normal((count, 16))
    return np.asarray(cells * rng.uniform(0.5, 2, (count, 1)), np.float32)


def official(cells: FloatArray, tau: float, eps: float) -> FloatArray:
    """(D - W) v = lambda D v by a dense solver."""
    units = cells / np.linalg.norm(cells, axis=1, keepdims=True)
    weights = np.zeros((len(cells), len(cells)))
    for i, a in enumerate(units):
        for j, b in enumerate(units):
            weights[i, j] = 1.0 if i == j or a @ b > tau else eps
    degrees = np.diag(weights.sum(1))
    vectors = eigh(degrees - weights, degrees, subset_by_index=[1, 1])[1]
    return np.asarray(vectors[:, 0])


@pytest.mark.parametrize("count", [8, 40, 65, 150])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_eigenvector_is_that_of_the_dense_solver(count: int, seed: int) -> None:
    cells = features(count, seed)  # no cosine is within 5e-6 of tau
    expected = official(cells, 0.2, 1e-5)
    found = compute_second_eigenvector(build_affinity(cells, 0.2, 1e-5))
    found = found * np.linalg.norm(expected) / np.linalg.norm(found)
    sign = np.sign(found @ expected)
    assert_close(sign * found, expected, depth="network")


@pytest.mark.parametrize("seed", range(4))
def test_the_same_partition_and_the_seed_on_its_side(seed: int) -> None:
    cells = features(120, seed)
    expected = official(cells, 0.2, 1e-5)
    side = expected > expected.mean()
    seed_cell = np.abs(expected).argmax()
    side = side if side[seed_cell] else ~side
    vector = orient_vector(compute_second_eigenvector(build_affinity(cells, 0.2, 1e-5)))
    assert np.array_equal(vector > vector.mean(), side), "no cell is within a thousandth of the mean"
    soft = compute_ncut(cells)
    assert soft.dtype == np.float32 and (soft.min(), soft.max()) == (0, 1)
    assert soft[side].min() > soft[~side].max()


def test_lanczos_gives_the_same_each_time() -> None:
    cells = features(200, 3, kinds=4)
    assert np.array_equal(compute_ncut(cells), compute_ncut(cells))


@pytest.mark.parametrize("count", [1, 2, 100])
def test_nothing_to_cut_is_no_thing(count: int) -> None:
    assert np.array_equal(compute_ncut(np.ones((count, 8), np.float32)), np.zeros(count, np.float32))


def test_cells_without_any_feature_are_joined_with_none_but_themselves() -> None:
    cells = np.array([[0, 0], [1, 0], [1, 0.1]], np.float32)
    assert build_affinity(cells, 0.2, 1e-5).tolist() == [[1, 1e-5, 1e-5], [1e-5, 1, 1], [1e-5, 1, 1]]
    assert compute_ncut(cells).round(2).tolist() == [1, 0, 0]
