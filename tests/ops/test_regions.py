from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from annofree.ops.regions import Connectivity, compute_boxes, drop_small, label_components

maps = arrays(np.int64, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3))
regions = arrays(np.int64, array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(0, 6))
few = settings(max_examples=60, deadline=None)


def flooded(labels: list[list[int]], connectivity: int) -> list[list[int]]:
    """Fill each region from its first cell, in row-major order."""
    height, width = len(labels), len(labels[0])
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if abs(dy) + abs(dx) <= (1 if connectivity == 4 else 2)]
    found, count = [[0] * width for _ in range(height)], 0
    for row in range(height):
        for column in range(width):
            if not labels[row][column] or found[row][column]:
                continue
            count += 1
            found[row][column] = count
            queue = deque([(row, column)])
            while queue:
                y, x = queue.popleft()
                for ny, nx in ((y + dy, x + dx) for dy, dx in steps):
                    inside = 0 <= ny < height and 0 <= nx < width
                    if inside and not found[ny][nx] and labels[ny][nx] == labels[row][column]:
                        found[ny][nx] = count
                        queue.append((ny, nx))
    return found


@few
@given(maps, st.sampled_from([4, 8]))
def test_components_are_those_that_a_flood_fills(labels: np.ndarray, connectivity: Connectivity) -> None:
    found = label_components(torch.from_numpy(labels), connectivity)
    assert found.dtype == torch.int64
    assert found.tolist() == flooded(labels.tolist(), connectivity)


def test_diagonal_neighbours_are_together_with_eight_only() -> None:
    labels = torch.tensor([[1, 0, 2], [0, 1, 0], [2, 0, 1]])
    assert label_components(labels, 4).tolist() == [[1, 0, 2], [0, 3, 0], [4, 0, 5]]
    assert label_components(labels, 8).tolist() == [[1, 0, 2], [0, 1, 0], [3, 0, 1]]


def test_nothing_has_no_components() -> None:
    assert label_components(torch.zeros(3, 4, dtype=torch.long), 4).tolist() == [[0] * 4] * 3


@few
@given(regions, st.integers(0, 7))
def test_boxes_are_tight_and_those_of_absent_regions_empty(found: np.ndarray, count: int) -> None:
    boxes = compute_boxes(torch.from_numpy(found), count)
    assert boxes.shape == (count, 4) and boxes.dtype == torch.int64
    for number, box in enumerate(boxes.tolist(), 1):
        cells = [(y, x) for y, x in np.ndindex(*found.shape) if found[y, x] == number]
        ys, xs = [y for y, _ in cells] or [0, -1], [x for _, x in cells] or [0, -1]
        expected = [min(xs), min(ys), max(xs) + 1, max(ys) + 1] if cells else [0, 0, 0, 0]
        assert box == expected


@few
@given(regions, st.integers(0, 12))
def test_small_regions_go_and_the_rest_keep_their_order(found: np.ndarray, least: int) -> None:
    areas = {n: int((found == n).sum()) for n in range(1, 7)}
    # a number that no cell has counts as a region of no cells, which min_area 0 keeps
    kept = [n for n in range(1, int(found.max()) + 1) if areas[n] >= least]
    expected = np.zeros_like(found)
    for new, old in enumerate(kept, 1):
        expected[found == old] = new
    assert drop_small(torch.from_numpy(found), least).tolist() == expected.tolist()


@pytest.mark.parametrize("least", [0, 1, 99])
def test_no_regions_at_all(least: int) -> None:
    nothing = torch.zeros(2, 3, dtype=torch.long)
    assert drop_small(nothing, least).tolist() == nothing.tolist()
