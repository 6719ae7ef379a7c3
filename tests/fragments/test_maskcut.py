"""MaskCut against a slow twin: dense generalized eigenvectors, features of what was found set to zero, cell by cell."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from annofree.errors import InputError
from annofree.fragments.maskcut import MaskCutSettings, cut_masks, solve_cut
from annofree.testing.obvious_maskcut import cut_obvious_masks, solve_obvious_cut
from annofree.testing.tolerances import assert_close

Array = np.ndarray[Any, Any]


def draw_keys(seed: int, grid: tuple[int, int] = (12, 15), things: int = 3, noise: float = 0.35) -> Array:
    """Keys (D, h, w) of some rectangles on a ground, each with a direction of its own."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.standard_normal((8, 8)))[0][: things + 1]
    keys = np.broadcast_to(directions[0][:, None, None], (8, *grid)).copy()
    for k in range(1, things + 1):
        y, x = rng.integers(0, grid[0] - 4), rng.integers(0, grid[1] - 4)
        keys[:, y : y + rng.integers(2, 5), x : x + rng.integers(2, 5)] = directions[k][:, None, None]
    return (keys + noise * rng.standard_normal(keys.shape)).astype(np.float32)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_a_cut_is_the_second_eigenvector_of_the_dense_problem(seed: int, share: float) -> None:
    keys = draw_keys(seed)
    features = keys.reshape(len(keys), -1).T
    painted = np.random.default_rng(seed).random(len(features)) < share
    found, expected = solve_cut(features, painted, 0.15), solve_obvious_cut(features, painted, 0.15)
    assert abs(found @ expected) / np.linalg.norm(found) / np.linalg.norm(expected) > 1 - 1e-9
    assert ((found > found.mean()) == (expected > expected.mean())).all()
    assert np.ptp(found[painted]) == 0 if painted.any() else True, "painted cells are one node"


@pytest.mark.parametrize("seed", range(12))
def test_masks_are_those_of_the_slow_twin(seed: int) -> None:
    keys, settings = draw_keys(seed, things=1 + seed % 4), MaskCutSettings(masks=4)
    found = cut_masks(keys, settings)
    expected = cut_obvious_masks(keys, **asdict(settings))
    assert len(found) == 4 and found[0].mask.any()
    for one, other in zip(found, expected, strict=True):
        assert (one.mask == other).all() and one.undecided == 0


def test_what_covers_three_corners_is_the_ground() -> None:
    """A ground that is the smaller, more alike side: the seed rule alone would take it."""
    keys = np.zeros((2, 8, 8), np.float32)
    keys[0] = 1
    keys[:, 1:7, 1:7] = np.array([0, 1])[:, None, None]
    (cut,) = cut_masks(keys, MaskCutSettings(masks=1))
    assert cut.mask[1:7, 1:7].all() and cut.mask.sum() == 36


def test_only_the_piece_of_the_seed_is_taken() -> None:
    keys = np.zeros((2, 6, 12), np.float32)
    keys[0] = 1
    for x, wide in ((1, 3), (7, 3)):
        keys[:, 1:4, x : x + wide] = np.array([0, 1])[:, None, None]
    (cut,) = cut_masks(keys, MaskCutSettings(masks=1))
    assert cut.mask.sum() == 9


def test_nothing_to_cut_is_no_mask() -> None:
    flat = np.ones((3, 5, 5), np.float32)
    assert [c.mask.any() for c in cut_masks(flat)] == [False] * 3
    assert_close(solve_cut(flat.reshape(3, -1).T, np.zeros(25, bool), 0.15), np.zeros(25))
    assert not solve_cut(flat.reshape(3, -1).T, np.ones(25, bool), 0.15).any(), "all is painted"


def test_islands_without_a_second_eigenvector_still_end() -> None:
    """Four unlike parts: the second eigenvalue is a triple one, any cut of them is right, and it is the same each time."""
    keys = np.zeros((4, 4, 16), np.float32)
    for k in range(4):
        keys[k, :, 4 * k : 4 * k + 4] = 1
    first, again = cut_masks(keys), cut_masks(keys)
    assert all((a.mask == b.mask).all() for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("wrong", [{"masks": 0}, {"tau": 2.0}, {"small": 1.0}, {"repeat": -0.1}])
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected masks"):
        MaskCutSettings(**wrong)
