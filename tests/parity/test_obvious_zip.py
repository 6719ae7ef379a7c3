"""The oracle itself, on cases worked by hand."""

import numpy as np
import pytest

from annofree.structures import BoolArray, IntArray
from annofree.testing.obvious_zip import (
    choose_obvious_seeds,
    compute_obvious_boxes,
    find_obvious_fragments,
    mark_obvious_active,
    number_obvious_instances,
    run_obvious_kmeans,
    run_obvious_zip,
)


def column(*values: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.array(values, np.float64).reshape(-1, 1)


def rows_as_clusters(*, width: int = 4) -> tuple[IntArray, BoolArray]:
    """Twenty clusters, one a row, all active."""
    return np.repeat(np.arange(1, 21)[:, None], width, axis=1), np.ones((20, width), bool)


def ell(height: int, width: int) -> IntArray:
    """Cluster 1 is an L along the left and the bottom; cluster 2 is the rest, with a margin at the top and the right."""
    labels = np.full((height + 1, width + 1), 2)
    labels[1:, 0] = labels[-1, :-1] = 1
    return labels


# k-means: labels are the last assignment made, the centres move once more


def test_labels_are_from_before_the_last_update() -> None:
    points, centers = column(0, 1, 2, 10), column(0, 1)
    assert run_obvious_kmeans(points, centers, 1).tolist() == [0, 1, 1, 1]
    assert run_obvious_kmeans(points, centers, 2).tolist() == [0, 0, 0, 1]
    assert run_obvious_kmeans(points, centers).tolist() == [0, 0, 0, 1]


def test_stops_when_all_centres_are_close() -> None:
    points, centers = column(0, 1, 2, 10) + 1e6, column(0, 1) + 1e6
    assert run_obvious_kmeans(points, centers).tolist() == [0, 1, 1, 1], "3.3 of a million is within rtol 1e-5"
    assert run_obvious_kmeans(points, centers, rtol=0).tolist() == [0, 0, 0, 1]
    assert run_obvious_kmeans(points, centers, rtol=0, atol=4).tolist() == [0, 1, 1, 1]
    assert run_obvious_kmeans(points, centers, rtol=0, atol=3).tolist() == [0, 0, 0, 1]


def test_goes_on_when_one_centre_of_many_still_moves() -> None:
    points, centers = column(0, 1, 2, 10, 500, 500), column(0, 1, 500)
    assert run_obvious_kmeans(points, centers, rtol=0, atol=3).tolist() == [0, 0, 0, 1, 2, 2]


def test_empty_cluster_keeps_its_centre_and_may_fill_later() -> None:
    assert run_obvious_kmeans(column(0, 0, 0, 6), column(5, 5), 1).tolist() == [0, 0, 0, 0], "a tie goes to the first"
    assert run_obvious_kmeans(column(0, 0, 0, 6), column(5, 5)).tolist() == [0, 0, 0, 1]
    assert run_obvious_kmeans(column(0, 1, 2), column(1, 99)).tolist() == [0, 0, 0]


def test_inputs_are_left_alone() -> None:
    points, centers = column(0, 1, 2, 10), column(0, 1)
    run_obvious_kmeans(points, centers)
    assert points.ravel().tolist() == [0, 1, 2, 10]
    assert centers.ravel().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("n", "k", "expected"),
    [(4, 3, [0, 2, 3]), (6, 3, [0, 2, 5]), (3, 5, [0, 1, 2]), (1, 20, [0]), (7, 1, [0]), (20, 20, list(range(20)))],
)
def test_seeds_round_half_to_even_and_come_once(n: int, k: int, expected: list[int]) -> None:
    assert choose_obvious_seeds(n, k) == expected


def test_twenty_seeds_equal_float32_linspace() -> None:
    for n in (400, 16_384, 21_760, 24_448):
        assert choose_obvious_seeds(n, 20) == np.unique(np.linspace(0, n - 1, 20, dtype=np.float32).round()).tolist()


# Active cells: one pixel a cell, above 0.7 of the mean over all pixels


def test_active_cells_look_at_one_pixel_and_compare_with_the_whole_map() -> None:
    activation = np.zeros((5, 7))
    activation[0, 0] = activation[1, 2] = activation[3, 4] = activation[2, 2] = 1.0
    active = mark_obvious_active(activation, (3, 3))  # rows 0, 1, 3 and columns 0, 2, 4
    assert active.tolist() == [[True, False, False], [False, True, False], [False, False, True]]


def test_active_is_strictly_above_the_threshold() -> None:
    assert mark_obvious_active(np.array([[0.35, 0.65]]), (1, 2)).tolist() == [[False, True]]
    assert mark_obvious_active(np.array([[0.36, 0.64]]), (1, 2)).tolist() == [[True, True]]
    assert not mark_obvious_active(np.zeros((4, 4)), (2, 2)).any()


def test_grid_may_be_finer_than_the_map() -> None:
    assert mark_obvious_active(np.array([[0.0, 1.0]]), (2, 4)).tolist() == [[False, False, True, True]] * 2


# Fragments: both thresholds are strict


@pytest.mark.parametrize("tenths", range(1, 11))
def test_fraction_of_exactly_three_tenths_is_rejected(tenths: int) -> None:
    labels = np.ones((tenths, 10), np.int64)
    active = np.zeros((tenths, 10), bool)
    active.flat[: 3 * tenths] = True
    assert not find_obvious_fragments(labels, active).any()
    active.flat[3 * tenths] = True
    assert find_obvious_fragments(labels, active).all()


@pytest.mark.parametrize(("height", "width", "kept"), [(5, 5, True), (5, 6, False), (6, 6, False)])
def test_box_of_exactly_three_areas_is_rejected(height: int, width: int, kept: bool) -> None:
    labels = ell(height, width)  # boxes of 25 / 9, 30 / 10 and 36 / 11 areas
    piece = labels == 1
    np.testing.assert_array_equal(find_obvious_fragments(labels, piece), piece & kept)


def test_pieces_of_a_cluster_are_judged_apart_and_touch_by_edges_only() -> None:
    labels = np.array([[1, 1, 2, 2], [2, 2, 1, 1]])
    active = np.array([[True, False, False, False], [False, False, False, False]])
    assert find_obvious_fragments(labels, active).tolist() == [[True, True, False, False], [False, False, False, False]]


def test_whole_pieces_are_kept_not_only_their_active_cells() -> None:
    labels, active = np.ones((2, 2), np.int64), np.array([[True, False], [False, False]])
    assert not find_obvious_fragments(labels, active).any(), "a quarter is too little"
    active[1, 1] = True
    assert find_obvious_fragments(labels, active).all()


# The quirk: 20 active clusters and some inactive cells are 21 keys, of which 20 are looked at


def test_rarest_of_21_keys_is_lost() -> None:
    labels, active = rows_as_clusters()
    active[5, 3] = active[10, 2] = active[10, 3] = False  # inactive 3, cluster 6 3, cluster 11 2
    kept = find_obvious_fragments(labels, active)
    assert np.flatnonzero(~kept.all(1)).tolist() == [10]
    assert not kept[10].any()


def test_nothing_is_lost_when_the_rarest_key_is_the_inactive_one() -> None:
    labels, active = rows_as_clusters()
    active[5, 3] = False
    assert find_obvious_fragments(labels, active).all()


def test_nothing_is_lost_with_20_keys() -> None:
    labels, active = rows_as_clusters()
    assert find_obvious_fragments(labels, active).all(), "no inactive cells"
    active[10, 2:] = active[3] = False
    assert np.flatnonzero(~find_obvious_fragments(labels, active).all(1)).tolist() == [3], "one cluster is wholly inactive"


@pytest.mark.parametrize("step", [1, -1])
def test_tie_for_the_last_place_loses_the_key_met_last(step: int) -> None:
    labels, active = rows_as_clusters()
    active[[3, 15], 2:] = False  # inactive 4, rows 3 and 15 2 each
    kept = find_obvious_fragments(labels[::step].copy(), active)
    assert np.flatnonzero(~kept.all(1)).tolist() == [15], "by place, not by number"


@pytest.mark.parametrize(("inactive_first", "lost"), [(False, []), (True, [10])])
def test_inactive_cells_take_part_in_the_tie(inactive_first: bool, lost: list[int]) -> None:
    labels, active = rows_as_clusters()
    active[10] = [False, False, True, True] if inactive_first else [True, True, False, False]
    assert np.flatnonzero(~find_obvious_fragments(labels, active).all(1)).tolist() == lost


def test_a_cluster_is_met_at_its_first_active_cell() -> None:
    labels, active = rows_as_clusters()
    labels[3:5] = [[4, 4, 5, 5], [5, 5, 4, 4]]
    active[3:5] = [[False, False, True, True], [False, False, True, True]]
    kept = find_obvious_fragments(labels, active)
    assert kept[3:5].tolist() == [[False, False, True, True], [False, False, False, False]], "4 begins, but 5 is met first"
    assert np.delete(kept, [3, 4], 0).all()


# Instances and boxes


def test_components_of_99_cells_are_skipped_and_of_100_numbered() -> None:
    kept = np.zeros((12, 40), bool)
    kept[:9, :11] = kept[:10, 20:30] = True
    instances = number_obvious_instances(kept)
    assert np.unique(instances).tolist() == [0, 1]
    assert (instances == 1).sum() == 100
    assert not instances[:, :20].any()
    assert np.unique(number_obvious_instances(kept, 99)).tolist() == [0, 1, 2]


def test_instances_are_numbered_by_their_first_cell_and_touch_by_edges_only() -> None:
    kept = np.array([[0, 0, 1], [1, 1, 0], [1, 0, 0]], bool)
    assert number_obvious_instances(kept, 0).tolist() == [[0, 0, 1], [2, 2, 0], [2, 0, 0]]


def test_touching_fragments_of_different_clusters_are_one_instance() -> None:
    labels = np.array([[1, 1, 2, 2]])
    assert number_obvious_instances(find_obvious_fragments(labels, np.ones((1, 4), bool)), 1).tolist() == [[1, 1, 1, 1]]


def test_box_scales_are_swapped() -> None:
    instances = np.zeros((128, 170), np.int64)
    instances[28:, 150:] = 1
    boxes = compute_obvious_boxes(instances, (480, 640))  # x by 480 / 128, not by 640 / 170
    np.testing.assert_allclose(boxes, [[562.5, 28 * 640 / 170, 637.5, 128 * 640 / 170]])


def test_box_is_end_exclusive_and_no_instance_is_no_box() -> None:
    assert compute_obvious_boxes(np.array([[0, 0, 0], [0, 2, 0], [1, 0, 0]]), (3, 3)).tolist() == [[0, 2, 1, 3], [1, 1, 2, 2]]
    assert compute_obvious_boxes(np.zeros((2, 2), np.int64), (4, 4)).shape == (0, 4)


# All of it


def test_two_squares_on_a_ground_of_another_feature() -> None:
    features = np.zeros((2, 30, 40))
    features[0, 5:15, 5:15] = features[1, 12:24, 25:35] = 8
    activation = np.kron(features.max(0) / 8, np.ones((4, 4)))
    activation[20:60, 20:40] = 0.0  # half of the first square
    found = run_obvious_zip(features, activation)
    assert found.kept.sum() == 220
    assert found.active.sum() == 170
    assert found.boxes.tolist() == [[20, 20, 60, 60], [100, 48, 140, 96]]
    np.testing.assert_array_equal(found.instances > 0, found.kept)
    assert len(run_obvious_zip(features, activation, min_area=101).boxes) == 1


def test_no_activation_finds_nothing() -> None:
    found = run_obvious_zip(np.random.default_rng(0).random((3, 8, 9)), np.zeros((16, 18)), k=4)
    assert not found.kept.any()
    assert found.boxes.shape == (0, 4)
