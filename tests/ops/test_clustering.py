from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from annofree.ops.clustering import choose_linspace_seeds, choose_plusplus_seeds, choose_random_seeds, run_kmeans
from annofree.testing.tolerances import assert_close


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def naive_kmeans(features: Tensor, centers: Tensor, iterations: int) -> Tensor:
    for _ in range(iterations):
        labels = torch.stack([(features - c).square().sum(1) for c in centers]).argmin(0)
        old, centers = centers, centers.clone()
        for k in set(labels.tolist()):
            centers[k] = features[labels == k].mean(0)
        if torch.allclose(centers, old):
            break
    return labels


def inertia(features: Tensor, labels: Tensor) -> float:
    """Sum of squared distances to the means of the clusters."""
    members = [features[labels == k] for k in set(labels.tolist())]
    return sum(float((m - m.mean(0)).square().sum()) for m in members)


@pytest.mark.parametrize("iterations", [1, 2, 5, 100])
@pytest.mark.parametrize(("n", "channels", "k"), [(300, 2, 5), (200, 24, 20), (50, 3, 1)])
def test_kmeans_equals_the_obvious_loop(n: int, channels: int, k: int, iterations: int) -> None:
    features = torch.randn(n, channels, generator=generator(n), dtype=torch.float64)
    labels = run_kmeans(features, features[:k], iterations=iterations)
    assert labels.dtype == torch.int64
    # no point is within 1e-4 of a tie, and this is double precision
    assert labels.tolist() == naive_kmeans(features, features[:k], iterations).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_kmeans_is_as_tight_as_scikit_learn(seed: int) -> None:
    features = torch.randn(400, 4, generator=generator(seed), dtype=torch.float64)
    centers = features[choose_plusplus_seeds(features, 6, generator(seed))]
    theirs = KMeans(6, init=centers.numpy(), n_init=1, max_iter=100, tol=0, algorithm="lloyd").fit(features.numpy())
    assert_close(inertia(features, run_kmeans(features, centers, rtol=0, atol=0)), theirs.inertia_)


def test_kmeans_never_gets_looser() -> None:
    features = torch.rand(200, 3, generator=generator(), dtype=torch.float64)
    course = [inertia(features, run_kmeans(features, features[:8], iterations=i)) for i in range(1, 12)]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in pairwise(course))  # but for the rounding of the sums
    assert course[-1] < course[0]


def test_labels_are_from_before_the_last_update() -> None:
    points, centers = column(0, 1, 2, 10), column(0, 1)
    assert run_kmeans(points, centers, iterations=1).tolist() == [0, 1, 1, 1]
    assert run_kmeans(points, centers, iterations=2).tolist() == [0, 0, 0, 1]


def test_stops_early_when_all_centres_are_close() -> None:
    points, centers = column(0, 1, 2, 10), column(0, 1)  # the second centre first moves by 10 / 3
    assert run_kmeans(points, centers, rtol=0, atol=4).tolist() == [0, 1, 1, 1]
    assert run_kmeans(points, centers, rtol=0, atol=3).tolist() == [0, 0, 0, 1]
    assert run_kmeans(points, centers, rtol=4, atol=0).tolist() == [0, 1, 1, 1]
    assert run_kmeans(column(0, 1, 2, 10, 500, 500), column(0, 1, 500), rtol=0, atol=3).tolist() == [0, 0, 0, 1, 2, 2]


def test_default_tolerance_is_a_hundred_thousandth() -> None:
    points, centers = column(0, 1, 2, 10).double() + 1e6, column(0, 1).double() + 1e6
    assert run_kmeans(points, centers).tolist() == [0, 1, 1, 1]
    assert run_kmeans(points, centers, rtol=0).tolist() == [0, 0, 0, 1]


def test_empty_cluster_keeps_its_centre_and_may_fill_later() -> None:
    assert run_kmeans(column(0, 0, 0, 6), column(5, 5), iterations=1).tolist() == [0, 0, 0, 0]
    assert run_kmeans(column(0, 0, 0, 6), column(5, 5)).tolist() == [0, 0, 0, 1]
    assert run_kmeans(column(0, 1, 2), column(1, 99)).tolist() == [0, 0, 0]


def test_emptied_cluster_keeps_its_last_centre() -> None:
    points, centers = column(-2, 0, 10, 12), column(-5.5, 5, 15.5)
    assert run_kmeans(points, centers, iterations=1).tolist() == [0, 1, 1, 2]
    assert run_kmeans(points, centers).tolist() == [0, 0, 2, 2], "the second stays at 5, and takes nothing back"


def test_inputs_are_left_alone() -> None:
    points, centers = column(0, 1, 2, 10), column(0, 1)
    run_kmeans(points, centers)
    assert points.flatten().tolist() == [0, 1, 2, 10]
    assert centers.flatten().tolist() == [0, 1]


def test_common_offset_changes_nothing() -> None:
    # the squares are rounded by some 0.002 with the offset, and no point is within 0.1 of a tie
    features = torch.randn(300, 8, generator=generator(4)) / 2 + torch.arange(300)[:, None] % 7
    expected = run_kmeans(features.double(), features[:7].double())
    assert run_kmeans(features + 64, features[:7] + 64).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("n", "k", "expected"),
    [(4, 3, [0, 2, 3]), (6, 3, [0, 2, 5]), (3, 5, [0, 1, 2]), (11, 3, [0, 5, 10]), (1, 20, [0]), (7, 1, [0])],
)
def test_linspace_seeds_round_half_to_even_and_come_once(n: int, k: int, expected: list[int]) -> None:
    assert choose_linspace_seeds(n, k).tolist() == expected
    assert choose_linspace_seeds(n, k).dtype == torch.int64


@pytest.mark.parametrize("k", [1, 5, 30, 100])
def test_seeds_are_different_points_and_no_more_than_there_are(k: int) -> None:
    features = torch.arange(30.0)[:, None]
    for seeds in (
        choose_linspace_seeds(30, k),
        choose_random_seeds(30, k, generator()),
        choose_plusplus_seeds(features, k, generator()),
    ):
        assert seeds.dtype == torch.int64
        assert len(seeds) == min(k, 30)
        assert len(set(seeds.tolist())) == len(seeds)
        assert 0 <= int(seeds.min()) <= int(seeds.max()) < 30


def test_random_choices_follow_the_generator() -> None:
    features = torch.randn(200, 3, generator=generator(7))
    ways: list[Callable[[torch.Generator], Tensor]] = [
        lambda g: choose_random_seeds(200, 8, g),
        lambda g: choose_plusplus_seeds(features, 8, g),
    ]
    for choose in ways:
        assert choose(generator(1)).tolist() == choose(generator(1)).tolist()
        assert choose(generator(1)).tolist() != choose(generator(2)).tolist()


def test_choosing_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    choose_random_seeds(50, 5, generator())
    choose_plusplus_seeds(torch.arange(50.0)[:, None], 5, generator())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seed", range(5))
def test_plusplus_never_picks_an_equal_point_again(seed: int) -> None:
    features = torch.tensor([[0.0, 0.0]] * 50 + [[3.0, 4.0]] + [[9.0, 0.0]] * 2)
    seeds = choose_plusplus_seeds(features, 3, generator(seed))
    assert sorted(features[seeds].tolist()) == [[0.0, 0.0], [3.0, 4.0], [9.0, 0.0]]
    assert len(choose_plusplus_seeds(features, 10, generator(seed))) == 3


def test_plusplus_prefers_far_points() -> None:
    features = torch.cat([torch.randn(99, 2, generator=generator()) / 100, torch.tensor([[1000.0, 1000.0]])])
    assert all(99 in choose_plusplus_seeds(features, 2, generator(seed)).tolist() for seed in range(20))
