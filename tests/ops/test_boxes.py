import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from annofree.ops.boxes import compute_centers, compute_tight_boxes


@settings(max_examples=80, deadline=None)
@given(arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.booleans(), fill=st.just(False)))
def test_boxes_hold_all_pixels_and_no_empty_margin(masks: np.ndarray) -> None:
    boxes = compute_tight_boxes(masks)
    assert boxes.shape == (len(masks), 4) and boxes.dtype == np.float32
    for mask, box in zip(masks, boxes.tolist(), strict=True):
        pixels = [(y, x) for y, x in np.ndindex(*mask.shape) if mask[y, x]]
        if not pixels:
            assert box == [0, 0, 0, 0]
            continue
        ys, xs = [y for y, _ in pixels], [x for _, x in pixels]
        assert box == [min(xs), min(ys), max(xs) + 1, max(ys) + 1]


def test_no_masks() -> None:
    assert compute_tight_boxes(np.zeros((0, 3, 4), bool)).shape == (0, 4)


def test_centres_are_halfway() -> None:
    boxes = np.array([[0, 0, 2, 4], [1, 1, 2, 2], [-1, 0, 1, 7]], np.float32)
    assert compute_centers(boxes).tolist() == [[1, 2], [1.5, 1.5], [0, 3.5]]
    assert compute_centers(boxes).dtype == np.float32
    assert compute_centers(np.zeros((0, 4), np.float32)).shape == (0, 2)


def test_the_centre_of_a_box_is_the_mean_pixel_of_a_full_rectangle() -> None:
    mask = np.zeros((1, 9, 12), bool)
    mask[0, 2:7, 3:11] = True
    y, x = np.nonzero(mask[0])
    assert compute_centers(compute_tight_boxes(mask)).tolist() == [[x.mean() + 0.5, y.mean() + 0.5]]
