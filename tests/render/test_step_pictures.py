"""What a method sees on its way is drawn where it lies, in its own cells."""

from __future__ import annotations

import numpy as np

from annofree.render.step_pictures import draw_boxes, draw_edges, draw_heat, draw_pieces
from annofree.structures import Image

GRAY = Image(np.full((64, 128, 3), 120, np.uint8))


def test_cells_of_heat_are_not_smoothed_and_odd_values_do_no_harm() -> None:
    drawn = np.asarray(draw_heat(GRAY, np.array([[0.0, 0.5, np.nan, 7.0]])))
    assert drawn.shape == (256, 512, 3)
    assert len(np.unique(drawn[:, :128].reshape(-1, 3), axis=0)) == 1
    assert (drawn[0, 0] == drawn[0, 300]).all() and drawn[0, 511].sum() > drawn[0, 200].sum() > drawn[0, 0].sum()


def test_pieces_have_colors_of_their_own_and_what_is_none_stays_gray() -> None:
    drawn = np.asarray(draw_pieces(GRAY, np.array([[0, 1], [2, 1]]), [(255, 0, 0), (0, 0, 255)]))
    assert drawn[9, 9].tolist() == [120, 120, 120]
    assert drawn[9, 400, 0] > 180 and drawn[250, 9, 2] > 180
    assert np.asarray(draw_pieces(GRAY, np.zeros((2, 2), np.int64))).std() == 0  # no piece at all


def test_edges_lie_between_pieces_alone() -> None:
    drawn = np.asarray(draw_edges(GRAY, np.array([[1, 2]])))
    assert (drawn[:, :250] == 120).all() and (drawn[:, 262:] == 120).all()
    assert not (drawn[:, 252:260] == 120).all()


def test_boxes_are_scaled_with_the_image_and_the_first_lies_on_top() -> None:
    red, blue = (255, 0, 0), (0, 0, 255)
    boxes = np.array([[10, 10, 30, 30], [10, 10, 60, 40]], np.float32)
    drawn = np.asarray(draw_boxes(GRAY, boxes, [red, blue]))
    assert drawn[40, 80].tolist() == [*red] and drawn[159, 120].tolist() == [*blue]
    assert np.asarray(draw_boxes(GRAY, boxes[:0], [])).std() == 0


def test_a_large_image_is_drawn_small() -> None:
    large = Image(np.full((2000, 3200, 3), 90, np.uint8))
    boxes = np.array([[0, 0, 3200, 2000]], np.float32)
    assert draw_heat(large, np.ones((3, 3))).size == draw_boxes(large, boxes, [(255, 0, 0)]).size == (1600, 1000)
