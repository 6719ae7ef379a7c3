"""Spectral clusters and the vote, against dense algebra, scikit-learn's k-means and loops over pixels."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.linalg import eigh
from sklearn.cluster import KMeans
from torch import Tensor

from annofree.ops.spectral import choose_winner, cluster_points, compute_eigenvectors, compute_pairwise_iou, find_spanning
from annofree.testing.tolerances import assert_close


def some(n: int, d: int, shift: float = 0.0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(n + d)) + shift


def slow_vectors(features: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k smallest generalised eigenvectors, from the whole matrix of weights; and W."""
    exact = features.double().numpy()
    units = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    cosines = units @ units.T
    weights = (cosines - cosines.min()) / (cosines.max() - cosines.min())
    sums = np.diag(weights.sum(1))
    return eigh(sums - weights, sums, subset_by_index=[0, k - 1])[1], sums


@pytest.mark.parametrize(("n", "d", "shift"), [(200, 16, 0.0), (200, 3, 0.0), (150, 12, 3.0), (30, 64, 0.0)])
def test_eigenvectors_are_those_of_the_whole_matrix(n: int, d: int, shift: float) -> None:
    features = some(n, d, shift)  # with a shift all cosines are positive, and the weights are no Gram matrix
    found = compute_eigenvectors(features, 3).numpy()
    expected, sums = slow_vectors(features, 3)
    single = torch.float32  # in which the least and the largest cosine are computed
    for mine, theirs in zip(found.T, expected.T, strict=True):
        assert_close(abs(mine @ sums @ theirs), 1.0, dtype=single, message="the same line")
    assert_close(found.T @ sums @ found, np.eye(3), dtype=single)
    assert_close(found[:, 0], np.full(n, found[0, 0]), message="the first is constant")


def test_cells_that_are_all_alike_have_one_vector_and_one_cluster() -> None:
    vectors = compute_eigenvectors(torch.ones(9, 4), 4)
    assert vectors.shape == (9, 1)
    assert cluster_points(vectors, 3, torch.Generator().manual_seed(0)).tolist() == [0] * 9


@pytest.mark.parametrize("k", [2, 3, 4])
def test_clusters_are_as_tight_as_scikit_learn_s(k: int) -> None:
    points = torch.cat([some(60, 2) * 0.4 + 2 * i for i in range(3)]).double()
    labels = cluster_points(points, k, torch.Generator().manual_seed(0))
    spread = sum(float((points[labels == j] - points[labels == j].mean(0)).square().sum()) for j in range(k))
    theirs = KMeans(k, n_init=10, random_state=0).fit(points.numpy())
    assert sorted(set(labels.tolist())) == list(range(k))
    assert spread <= theirs.inertia_ * 1.0001


def slow_box(mask: Tensor) -> tuple[int, int, int, int]:
    cells = [(y, x) for y, x in np.ndindex(*mask.shape) if mask[y, x]]
    ys, xs = [y for y, _ in cells], [x for _, x in cells]
    return min(ys), max(ys), min(xs), max(xs)


def slow_winner(masks: Tensor) -> tuple[int, float]:
    h, w = masks.shape[1:]
    boxes = [slow_box(m) for m in masks]
    standing = [i for i, (y0, y1, x0, x1) in enumerate(boxes) if y1 - y0 + 1 < h and x1 - x0 + 1 < w]
    standing = standing or list(range(len(masks)))
    votes = []
    for i in standing:
        ious = [Fraction(int((masks[i] & masks[j]).sum()), int((masks[i] | masks[j]).sum())) for j in standing]
        votes.append(sum(ious))
    best = votes.index(max(votes))
    return standing[best], float((votes[best] - 1) / (len(standing) - 1)) if len(standing) > 1 else 1.0


@pytest.mark.parametrize("seed", range(8))
def test_the_winner_is_that_of_a_count_by_hand(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(9, 10, 12, dtype=torch.bool)
    for mask in masks:
        y, x, height, width = (int(torch.randint(*r, (1,), generator=generator)) for r in ((0, 6), (0, 6), (2, 9), (2, 11)))
        mask[y : y + height, x : x + width] = True
    best, agreement = choose_winner(masks)
    expected = slow_winner(masks)
    assert best == expected[0]
    assert_close(agreement, expected[1], dtype=torch.float32)


def test_masks_from_edge_to_edge_stand_back_unless_all_do() -> None:
    ground = torch.ones(3, 8, 8, dtype=torch.bool)
    ground[1, 0] = ground[2, 0, 0] = False  # two more backgrounds, which agree with the first
    thing = torch.zeros(1, 8, 8, dtype=torch.bool)
    thing[0, 2:5, 3:6] = True
    assert find_spanning(torch.cat([ground, thing])).tolist() == [True, True, True, False]
    assert choose_winner(torch.cat([ground, thing])) == (3, 1.0)
    assert choose_winner(ground)[0] == 2, "among backgrounds the vote goes on: 63 cells agree best with 64 and 56"


def test_of_equal_votes_the_first_wins() -> None:
    masks = torch.zeros(4, 6, 6, dtype=torch.bool)
    masks[1, 1:3, 1:3] = masks[2, 1:3, 1:3] = masks[3, 4, 4] = masks[0, 3, 3] = True
    assert choose_winner(masks)[0] == 1


def test_iou_of_empty_masks_is_nothing() -> None:
    masks = torch.zeros(2, 3, 3, dtype=torch.bool)
    assert compute_pairwise_iou(masks).tolist() == [[0, 0], [0, 0]]
