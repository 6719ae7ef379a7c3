"""The lattice and the field, against direct sums over all pairs of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from annofree.errors import InputError
from annofree.ops.crf import CrfSettings, DenseCrf
from annofree.ops.lattice import Lattice, _find_simplices, _lift
from annofree.testing.tolerances import assert_close

Array = np.ndarray[Any, Any]


def sum_directly(features: Array, values: Array) -> Array:
    """The Gaussian sum around each point, normalized symmetrically."""
    kernel = np.exp(-((features[:, None].astype(float) - features[None]) ** 2).sum(-1) / 2)
    norm = 1 / np.sqrt(kernel.sum(1))
    summed: Array = norm * (kernel @ (norm * values))
    return summed


def filter_normalized(features: Array, values: Array) -> Array:
    lattice = Lattice(features)
    norm = 1 / np.sqrt(lattice.filter(np.ones(len(features), np.float32)))
    filtered: Array = norm * lattice.filter((norm * values).astype(np.float32))
    return filtered


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_points_lie_inside_their_simplex(d: int) -> None:
    features = np.random.default_rng(d).normal(size=(300, d)) * 3
    corners, weights = _find_simplices(features)
    assert weights.min() > -1e-12
    assert_close(weights.sum(1), np.ones(300))
    assert_close((corners * weights[..., None]).sum(1), _lift(features))
    assert not corners.sum(-1).any(), "the lattice lies on the plane of coordinates that sum to 0"


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_a_filter_is_near_the_gaussian_sum(d: int) -> None:
    """Of points that lie close; the lattice is an approximation, and the same as its authors'."""
    rng = np.random.default_rng(d)
    features, values = (rng.normal(size=(1500, d)) * 0.7).astype(np.float32), rng.random(1500).astype(np.float32)
    found, expected = filter_normalized(features, values), sum_directly(features, values)
    assert np.corrcoef(found, expected)[0, 1] > 0.99
    assert np.abs(found - expected).mean() < 0.02 * expected.mean()


def test_the_kernel_of_place_is_near_the_gaussian_sum_on_an_image() -> None:
    y, x = np.mgrid[:40, :40].reshape(2, -1)
    features, values = np.stack([x, y], 1).astype(np.float32) / 3, np.random.default_rng(0).random(1600).astype(np.float32)
    found, expected = filter_normalized(features, values), sum_directly(features, values)
    assert np.corrcoef(found, expected)[0, 1] > 0.99


def test_channels_are_filtered_each_by_itself() -> None:
    rng = np.random.default_rng(0)
    lattice, values = Lattice(rng.normal(size=(50, 2)).astype(np.float32)), rng.random((50, 3)).astype(np.float32)
    assert_close(lattice.filter(values), np.stack([lattice.filter(values[:, k]) for k in range(3)], 1))


def test_a_field_is_that_of_two_labels_by_direct_sums() -> None:
    """The slow twin: two labels, their energies and softmax, on every pair of pixels."""
    rng = np.random.default_rng(1)
    image = np.full((20, 24, 3), 60, np.uint8)
    image[4:15, 6:18] = 200
    image = np.clip(image + rng.integers(-3, 4, image.shape), 0, 255).astype(np.uint8)
    rough = np.zeros((20, 24), bool)
    rough[3:13, 8:20] = True
    s = CrfSettings(near=2, far=8, color=20)
    y, x = np.mgrid[:20, :24].reshape(2, -1)
    place, color = np.stack([x, y], 1).astype(float), image.reshape(-1, 3).astype(float)
    kernels = [(place / s.near, s.near_weight), (np.concatenate([place / s.far, color / s.color], 1), s.color_weight)]
    inside = expit(2 * rough.ravel().astype(float) - 1)
    unary = -np.log(np.stack([1 - inside, inside]))
    q = np.exp(-unary) / np.exp(-unary).sum(0)
    for _ in range(s.steps):
        energy = unary - sum(w * np.stack([sum_directly(f, label) for label in q]) for f, w in kernels)
        q = np.exp(-(energy - energy.min(0))) / np.exp(-(energy - energy.min(0))).sum(0)
    found = DenseCrf(image, s).refine(rough)
    assert (found.ravel() != (q[1] > q[0])).mean() < 0.01
    assert found[5:14, 7:17].all() and found.sum() > rough.sum(), "the mask was drawn to the edges of the square"


def test_what_cannot_be_filtered() -> None:
    for wrong in (np.zeros(3, np.float32), np.zeros((0, 2), np.float32), np.full((2, 2), np.nan, np.float32)):
        with pytest.raises(InputError, match="finite features"):
            Lattice(wrong)
    with pytest.raises(InputError, match="too far apart"):
        Lattice(np.array([[0] * 5, [1e9] * 5], np.float32))
    with pytest.raises(InputError, match="deviations"):
        CrfSettings(near=0)
