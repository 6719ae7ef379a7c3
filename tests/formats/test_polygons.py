import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as oracle

from annofree.formats.polygons import bridge_rings, draw_polygon, fill_to_rle, inset_ring, trace_polygons, trace_rings
from annofree.ops.rle import decode_rle

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, with NumPy 2

Mask = npt.NDArray[np.bool_]

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9))
BLOCKS = st.tuples(MASKS, st.integers(1, 4), st.integers(1, 4)).map(lambda t: np.kron(t[0], np.ones(t[1:], bool)))


def by_pycocotools(polygons: list[npt.NDArray[np.int64]], size: tuple[int, ...]) -> Mask:
    rles = oracle.frPyObjects([p.astype(float).ravel().tolist() for p in polygons], *size)
    return np.asarray(oracle.decode(oracle.merge(rles)), bool)


@given(MASKS | BLOCKS)
def test_polygons_fill_to_the_very_mask(mask: Mask) -> None:
    found = trace_rings(mask)
    assert bool(found) == bool(mask.any())
    if found:
        assert np.array_equal(by_pycocotools([bridge_rings(found)], mask.shape), mask)
        parts = trace_polygons(mask)
        assert np.array_equal(by_pycocotools(parts, mask.shape), mask)
        assert np.array_equal(decode_rle(fill_to_rle(parts, (mask.shape[0], mask.shape[1]))), mask)


@given(MASKS | BLOCKS)
def test_outlines_drawn_with_their_line_are_the_mask(mask: Mask) -> None:
    for ring in trace_rings(mask):
        if not ring.hole:
            solid = by_pycocotools([ring.points], mask.shape)
            assert np.array_equal(draw_polygon(inset_ring(ring), (mask.shape[0], mask.shape[1])), solid)


def test_a_ring_with_a_hole_and_a_second_part() -> None:
    mask = np.zeros((5, 8), bool)
    mask[1:4, 1:4], mask[2, 2], mask[0, 6] = True, False, True
    found = trace_rings(mask)
    assert [(r.hole, r.points.tolist()) for r in found] == [
        (False, [[6, 0], [7, 0], [7, 1], [6, 1]]),
        (False, [[1, 1], [4, 1], [4, 4], [1, 4]]),
        (True, [[2, 2], [3, 2], [3, 3], [2, 3]]),
    ]
    assert found[1].part == found[2].part != found[0].part
    assert [len(p) for p in trace_polygons(mask)] == [4, 4 + 4 + 2]
    assert inset_ring(found[1]).tolist() == [[1, 1], [3, 1], [3, 3], [1, 3]]


def test_pixels_that_touch_at_a_corner_are_two_parts() -> None:
    assert len(trace_rings(np.eye(2, dtype=bool))) == 2 and len(trace_rings(~np.eye(2, dtype=bool))) == 2
    hole = np.ones((4, 4), bool)
    hole[1, 1] = hole[2, 2] = False
    assert [ring.hole for ring in trace_rings(hole)] == [False, True]


def test_many_parts_are_joined_in_time() -> None:
    noise = np.random.default_rng(0).random((80, 80)) < 0.4
    found = trace_rings(noise)
    assert len(found) > 500
    assert np.array_equal(by_pycocotools([bridge_rings(found)], noise.shape), noise)
