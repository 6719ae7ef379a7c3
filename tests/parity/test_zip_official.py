"""The fast steps of Zip against the obvious ones, on random maps and on the special cases of the released demo."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from skimage.measure import label
from torch import Tensor

from annofree.clues.similarity import mark_active_cells
from annofree.detections.merging import merge_adjacent, select_fragments_official, select_fragments_paper
from annofree.fragments.clusters import cut_fragments
from annofree.ops.clustering import choose_linspace_seeds, run_kmeans
from annofree.ops.regions import label_components
from annofree.structures import BoolArray, Fragments, IntArray
from annofree.testing.obvious_zip import (
    choose_obvious_seeds,
    find_obvious_fragments,
    mark_obvious_active,
    number_obvious_instances,
    run_obvious_kmeans,
    run_obvious_zip,
)

Connectivity = Literal[4, 8]
Floats = npt.NDArray[np.float64]


def blocks(rng: np.random.Generator, grid: tuple[int, int], clusters: int, side: int) -> IntArray:
    """Random clusters in squares of ``side`` cells, with every tenth cell changed; side 1 is noise."""
    h, w = grid
    coarse = rng.integers(1, clusters + 1, (-(-h // side), -(-w // side)))
    labels = np.kron(coarse, np.ones((side, side), np.int64))[:h, :w]
    return np.where(rng.random(grid) < 0.1, rng.integers(1, clusters + 1, grid), labels)


def kept_cells(fragments: Fragments, kept: Tensor) -> BoolArray:
    """Return the cells (h, w) of the kept fragments (N,) of one class."""
    return np.isin(fragments.labels.numpy(), 1 + np.flatnonzero(kept.numpy()))


def fast_kept(labels: IntArray, active: BoolArray) -> BoolArray:
    fragments = cut_fragments(torch.from_numpy(labels), 4)
    kept = select_fragments_official(fragments, torch.from_numpy(active)[None])
    assert kept.shape == (1, len(fragments))
    return kept_cells(fragments, kept[0])


def obvious_paper_kept(labels: IntArray, activation: Floats, connectivity: Connectivity) -> BoolArray:
    """Zip's Eq. 4 by loops: mean activation of at least 0.3, box of at most 3 areas."""
    kept = np.zeros(labels.shape, bool)
    for cluster in np.unique(labels):
        pieces = label(labels == cluster, connectivity=connectivity // 4)
        for number in range(1, pieces.max() + 1):
            piece = pieces == number
            height, width = (np.ptp(places) + 1 for places in np.nonzero(piece))
            if activation[piece].mean() >= 0.3 and height * width / piece.sum() <= 3:
                kept |= piece
    return kept


def rows_as_clusters(clusters: int = 20, *, width: int = 4) -> tuple[IntArray, BoolArray]:
    """One cluster a row, all active."""
    return np.repeat(np.arange(1, clusters + 1)[:, None], width, axis=1), np.ones((clusters, width), bool)


def ell(height: int, width: int) -> IntArray:
    """Cluster 1 is an L of height + width - 1 cells, cluster 2 all else."""
    labels = np.full((height + 1, width + 1), 2)
    labels[1:, 0] = labels[-1, :-1] = 1
    return labels


# K-means


@pytest.mark.parametrize("seed", range(4))
def test_kmeans_equals_the_loop_on_random_features(seed: int) -> None:
    features = np.random.default_rng(seed).random((16 * 16, 12))
    centers = features[choose_obvious_seeds(len(features), 20)]
    fast = run_kmeans(torch.from_numpy(features), torch.from_numpy(centers))
    np.testing.assert_array_equal(fast.numpy(), run_obvious_kmeans(features, centers))


@pytest.mark.parametrize("iterations", [1, 2, 3, 7])
def test_kmeans_equals_the_loop_when_cut_short(iterations: int) -> None:
    features = np.random.default_rng(9).random((500, 6))
    centers = features[:20]
    fast = run_kmeans(torch.from_numpy(features), torch.from_numpy(centers), iterations=iterations)
    np.testing.assert_array_equal(fast.numpy(), run_obvious_kmeans(features, centers, iterations))


def test_kmeans_equals_the_loop_in_single_precision() -> None:
    # chosen such that in none of six rounds a point lies within 0.01 of a border, where the fast way is exact to 1.5e-4
    rng = np.random.default_rng(69)
    hills = 10 * rng.random((20, 32), np.float32) - 5
    features = hills[rng.integers(0, 20, 600)] + rng.normal(0, 0.3, (600, 32)).astype(np.float32)
    centers = features[choose_obvious_seeds(600, 20)]
    fast = run_kmeans(torch.from_numpy(features), torch.from_numpy(centers))
    np.testing.assert_array_equal(fast.numpy(), run_obvious_kmeans(features, centers))


@pytest.mark.numeric
def test_kmeans_equals_the_loop_at_larger_sizes_in_double_precision() -> None:
    # in single precision a point near a border falls by the order of sums, and centers follow: nobody's cells are another's
    rng = np.random.default_rng(11)
    features = np.maximum(rng.normal(0, 1, (3000, 256)) + 2 * rng.normal(0, 1, (30, 256))[rng.integers(0, 30, 3000)], 0)
    centers = features[choose_obvious_seeds(3000, 20)]
    fast = run_kmeans(torch.from_numpy(features), torch.from_numpy(centers))
    np.testing.assert_array_equal(fast.numpy(), run_obvious_kmeans(features, centers))


@pytest.mark.parametrize("n", [1, 3, 19, 20, 21, 1024, 16_384, 21_760, 24_448])
def test_twenty_seeds_equal_the_loop(n: int) -> None:
    assert choose_linspace_seeds(n, 20).tolist() == choose_obvious_seeds(n, 20)


# Active cells


@pytest.mark.parametrize(("size", "grid"), [((48, 64), (12, 17)), ((30, 30), (30, 30)), ((53, 97), (7, 5)), ((5, 9), (8, 20))])
def test_active_cells_equal_the_loop(size: tuple[int, int], grid: tuple[int, int]) -> None:
    activation = np.random.default_rng(0).random((3, *size))
    expected = np.stack([mark_obvious_active(one, grid) for one in activation])
    np.testing.assert_array_equal(mark_active_cells(torch.from_numpy(activation), grid).numpy(), expected)


def test_sampled_pixels_are_floored_at_every_size() -> None:
    for height in range(1, 60):
        ramp = np.arange(height, dtype=np.float64)[:, None]
        for h in range(1, 25):
            rows = np.arange(h) * height // h
            active = mark_active_cells(torch.from_numpy(ramp)[None], (h, 1))[0, :, 0]
            assert active.tolist() == (ramp[rows, 0] > 0.7 * ramp.mean()).tolist(), (height, h)


def test_active_is_strictly_above_the_threshold() -> None:
    assert mark_active_cells(torch.tensor([[[0.35, 0.65]], [[0.0, 0.0]]]), (1, 2)).tolist() == [
        [[False, True]],
        [[False, False]],
    ]


# Regions and fragments


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("side", [1, 3, 6])
def test_components_are_numbered_as_by_skimage(connectivity: Connectivity, side: int) -> None:
    labels = blocks(np.random.default_rng(side), (23, 31), 4, side) - 1
    fast = label_components(torch.from_numpy(labels), connectivity)
    np.testing.assert_array_equal(fast.numpy(), label(labels, background=0, connectivity=connectivity // 4))
    firsts = [int((fast == n).flatten().int().argmax()) for n in range(1, int(fast.max()) + 1)]
    assert firsts == sorted(firsts)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_fragments_are_measured_as_by_loops(connectivity: Connectivity) -> None:
    clusters = blocks(np.random.default_rng(5), (19, 26), 6, 4)
    fragments = cut_fragments(torch.from_numpy(clusters), connectivity)
    labels = fragments.labels.numpy()
    assert np.unique(labels).tolist() == list(range(1, len(fragments) + 1))
    for n in range(len(fragments)):
        rows, columns = np.nonzero(labels == n + 1)
        assert fragments.area[n] == len(rows)
        assert np.unique(clusters[rows, columns]).tolist() == [fragments.cluster[n]]
        assert fragments.boxes[n].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("side", [1, 4, 8])
def test_kept_fragments_equal_the_loop(seed: int, side: int) -> None:
    rng = np.random.default_rng([seed, side])
    labels = blocks(rng, (24, 31), 20, side)
    active = rng.random(labels.shape) < (0.05, 0.3, 0.6)[seed % 3]
    expected = find_obvious_fragments(labels, active)
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(fast_kept(labels, active), expected)


def test_kept_fragments_of_many_classes_equal_one_class_at_a_time() -> None:
    rng = np.random.default_rng(0)
    labels = blocks(rng, (24, 31), 20, 5)
    active = rng.random((5, *labels.shape)) < np.array([0.0, 0.1, 0.3, 0.6, 1.0])[:, None, None]
    fragments = cut_fragments(torch.from_numpy(labels), 4)
    kept = select_fragments_official(fragments, torch.from_numpy(active))
    assert kept.dtype == torch.bool
    for class_kept, class_active in zip(kept, active, strict=True):
        np.testing.assert_array_equal(kept_cells(fragments, class_kept), find_obvious_fragments(labels, class_active))


@pytest.mark.parametrize("tenths", range(1, 11))
def test_fraction_of_exactly_three_tenths(tenths: int) -> None:
    labels, active = np.ones((tenths, 10), np.int64), np.zeros((tenths, 10), bool)
    active.flat[: 3 * tenths] = True
    fragments = cut_fragments(torch.from_numpy(labels), 4)
    assert not fast_kept(labels, active).any(), "the released demo wants more"
    assert select_fragments_paper(fragments, torch.from_numpy(active)[None].float()).tolist() == [[True]], (
        "the paper is content"
    )
    active.flat[3 * tenths - 1] = False
    assert select_fragments_paper(fragments, torch.from_numpy(active)[None].float()).tolist() == [[False]]
    active.flat[3 * tenths - 1 : 3 * tenths + 1] = True
    assert fast_kept(labels, active).all()


@pytest.mark.parametrize(
    ("height", "width", "official", "paper"), [(5, 5, True, True), (5, 6, False, True), (6, 6, False, False)]
)
def test_box_of_exactly_three_areas(height: int, width: int, official: bool, paper: bool) -> None:
    labels = ell(height, width)
    piece = labels == 1
    np.testing.assert_array_equal(fast_kept(labels, piece), piece & official)
    fragments = cut_fragments(torch.from_numpy(labels), 4)
    kept = select_fragments_paper(fragments, torch.from_numpy(piece)[None].float())
    np.testing.assert_array_equal(kept_cells(fragments, kept[0]), piece & paper)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_paper_kept_equals_the_loop(connectivity: Connectivity) -> None:
    rng = np.random.default_rng(connectivity)
    labels = blocks(rng, (24, 31), 7, 4)
    activation = rng.random((2, *labels.shape)) ** 2
    fragments = cut_fragments(torch.from_numpy(labels), connectivity)
    kept = select_fragments_paper(fragments, torch.from_numpy(activation))
    for class_kept, class_activation in zip(kept, activation, strict=True):
        expected = obvious_paper_kept(labels, class_activation, connectivity)
        assert 0 < expected.sum() < expected.size
        np.testing.assert_array_equal(kept_cells(fragments, class_kept), expected)


# The 20 commonest keys


def case(name: str) -> tuple[IntArray, BoolArray]:
    labels, active = rows_as_clusters()
    if name == "a cluster is rarest":
        active[5, 3] = active[10, 2] = active[10, 3] = False
    elif name == "inactive is rarest":
        active[5, 3] = False
    elif name == "only 20 keys":
        active[10, 2:] = active[3] = False
    elif name == "tie of clusters":
        active[[3, 15], 2:] = False
    elif name == "tie of clusters, numbered upwards":
        labels = labels[::-1].copy()
        active[[3, 15], 2:] = False
    elif name == "tie with inactive, met later":
        active[10, 2:] = False
    elif name == "tie with inactive, met earlier":
        active[10, :2] = False
    elif name == "tie, first cell is not first active cell":
        labels[3:5] = [[4, 4, 5, 5], [5, 5, 4, 4]]
        active[3:5, :2] = False
    return labels, active


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("all active", 0),
        ("a cluster is rarest", 4),
        ("inactive is rarest", 0),
        ("only 20 keys", 4),
        ("tie of clusters", 4),
        ("tie of clusters, numbered upwards", 4),
        ("tie with inactive, met later", 0),
        ("tie with inactive, met earlier", 4),
        ("tie, first cell is not first active cell", 6),
    ],
)
def test_which_of_21_keys_is_lost(name: str, lost: int) -> None:
    labels, active = case(name)
    expected = find_obvious_fragments(labels, active)
    assert (~expected).sum() == lost
    np.testing.assert_array_equal(fast_kept(labels, active), expected)


@pytest.mark.parametrize("seed", range(10))
def test_random_ties_lose_the_same_key(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(1, 21), 6)).reshape(10, 12)
    active = np.zeros(labels.shape, bool)
    for cluster in range(1, 21):
        places = rng.permutation(np.flatnonzero(labels == cluster))
        active.flat[places[: 2 + cluster % 2]] = True  # ten clusters tie for the last place
    np.testing.assert_array_equal(fast_kept(labels, active), find_obvious_fragments(labels, active))


def test_classes_lose_different_keys_and_clusters_may_be_more_than_20() -> None:
    labels, active = rows_as_clusters(26)
    both = np.stack([active, active])
    both[0, 22:] = both[1, :3] = False
    both[:, 10, 1:] = False
    fragments = cut_fragments(torch.from_numpy(labels), 4)
    kept = select_fragments_official(fragments, torch.from_numpy(both))
    for class_kept, class_active in zip(kept, both, strict=True):
        np.testing.assert_array_equal(kept_cells(fragments, class_kept), find_obvious_fragments(labels, class_active))


# Instances


@pytest.mark.parametrize("min_area", [0, 1, 12, 100])
def test_instances_equal_the_loop(min_area: int) -> None:
    rng = np.random.default_rng(min_area)
    labels = blocks(rng, (40, 50), 12, 7)
    active = np.kron(rng.random((4, 5)) < 0.5, np.ones((10, 10), bool))
    fragments = cut_fragments(torch.from_numpy(labels), 4)
    kept = select_fragments_official(fragments, torch.from_numpy(active)[None])[0]
    expected = number_obvious_instances(find_obvious_fragments(labels, active), min_area)
    assert expected.max() >= 1
    np.testing.assert_array_equal(merge_adjacent(fragments, kept, 4, min_area).numpy(), expected)


def test_components_of_99_cells_are_skipped_and_of_100_numbered() -> None:
    labels = np.ones((12, 40), np.int64)
    labels[:9, :11], labels[:10, 20:30] = 2, 3
    fragments = cut_fragments(torch.from_numpy(labels), 4)
    kept = fragments.cluster > 1
    instances = merge_adjacent(fragments, kept, 4, 100).numpy()
    np.testing.assert_array_equal(instances, labels == 3)
    np.testing.assert_array_equal(merge_adjacent(fragments, kept, 4, 99).numpy(), labels - 1)


def test_corners_join_instances_with_8_neighbours_only() -> None:
    fragments = cut_fragments(torch.tensor([[1, 2], [2, 1]]), 4)
    kept = fragments.cluster == 1
    assert merge_adjacent(fragments, kept, 4).tolist() == [[1, 0], [0, 2]]
    assert merge_adjacent(fragments, kept, 8).tolist() == [[1, 0], [0, 1]]


def test_nothing_kept_is_no_instance() -> None:
    fragments = cut_fragments(torch.ones(3, 4, dtype=torch.long), 4)
    instances = merge_adjacent(fragments, torch.zeros(1, dtype=torch.bool), 4, 100)
    assert instances.dtype == torch.int64
    assert not instances.any()


# All of it


@pytest.mark.parametrize("seed", range(3))
def test_one_class_from_features_to_instances(seed: int) -> None:
    rng = np.random.default_rng(seed)
    things = np.kron(rng.integers(0, 9, (4, 5)), np.ones((8, 8), np.int64))
    features = rng.normal(0, 3, (16, 9))[:, things] + rng.normal(0, 0.5, (16, 32, 40))
    activation = np.kron(things < 3, np.ones((4, 3))) * 0.8 + 0.2 * rng.random((128, 120))
    found = run_obvious_zip(features, activation, min_area=30)
    assert len(found.boxes) >= 1

    cells = torch.from_numpy(features).flatten(1).T
    clusters = run_kmeans(cells, cells[choose_linspace_seeds(len(cells), 20)]).view(32, 40) + 1
    np.testing.assert_array_equal(clusters.numpy(), found.clusters)
    fragments = cut_fragments(clusters, 4)
    kept = select_fragments_official(fragments, mark_active_cells(torch.from_numpy(activation)[None], (32, 40)))[0]
    np.testing.assert_array_equal(kept_cells(fragments, kept), found.kept)
    np.testing.assert_array_equal(merge_adjacent(fragments, kept, 4, 30).numpy(), found.instances)
