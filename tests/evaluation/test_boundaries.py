"""Edges against true edges: the slow twin, and cases whose answer is plain."""

from __future__ import annotations

import numpy as np
import pytest

from annofree.errors import InputError
from annofree.evaluation.metrics.boundaries import (
    BoundaryScorer,
    BoundaryScores,
    evaluate_boundaries,
    mark_label_edges,
    mark_mask_edges,
    mark_true_edges,
)
from annofree.formats.coco import CocoFile
from annofree.ops.rle import encode_rles
from annofree.structures import BoolArray
from annofree.testing.obvious_boundaries import count_obvious_edges, list_obvious_edges

NONE = np.zeros((12, 17), bool)


def place(edges: BoolArray) -> list[tuple[int, int]]:
    return [(int(y), int(x)) for y, x in np.argwhere(edges)]


def draw_blocks(seed: int, cell: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Numbers 0 .. 3 in blocks, (12, 17)."""
    cells = np.random.default_rng(seed).integers(0, 4, (12 // cell + 1, 17 // cell + 1))
    return cells.repeat(cell, 0).repeat(cell, 1)[:12, :17]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 3])
def test_it_counts_as_the_slow_twin(seed: int, tolerance: float) -> None:
    true, said = draw_blocks(seed, 5), draw_blocks(seed + 100, 4)
    ignored = np.random.default_rng(seed).random((12, 17)) < 0.2
    assert place(mark_label_edges(true)) == list_obvious_edges(true)
    scorer = BoundaryScorer([tolerance])
    scorer.add(mark_label_edges(true), mark_label_edges(said), ignored)
    (scores,) = scorer.compute_scores()
    one, other = list_obvious_edges(said), list_obvious_edges(true)
    met, count = count_obvious_edges(one, other, tolerance, ignored)
    assert scores.precision == met / count
    met, count = count_obvious_edges(other, one, tolerance, ignored)
    assert scores.recall == met / count


def test_images_are_counted_together() -> None:
    scorer = BoundaryScorer([1])
    edges = NONE.copy()
    edges[3] = True
    scorer.add(edges, edges)  # 17 of 17
    scorer.add(edges, NONE)  # 0 of 17 true ones, none said
    assert scorer.compute_scores() == (BoundaryScores(1, 1.0, 0.5),)


def test_nothing_said_and_nothing_true() -> None:
    edges = NONE.copy()
    edges[3] = True
    for true, said, expected in ((edges, NONE, (None, 0.0)), (NONE, edges, (0.0, None)), (NONE, NONE, (None, None))):
        scorer = BoundaryScorer([2])
        scorer.add(true, said)
        (scores,) = scorer.compute_scores()
        assert (scores.precision, scores.recall, scores.f) == (*expected, None)
    assert BoundaryScores(1, 0.0, 0.0).f == 0


def test_masks_that_touch_have_an_edge_between_them_and_may_overlap() -> None:
    masks = np.zeros((2, 12, 17), bool)
    masks[0, 2:6, 2:8], masks[1, 2:6, 8:12] = True, True
    between = mark_mask_edges(encode_rles(masks), (12, 17))
    assert between[2:6, 7].all() and not between[2:5, 9].any()
    masks[1, 2:6, 6:12] = True
    both = mark_mask_edges(encode_rles(masks), (12, 17))
    assert both[2:6, 5].all() and both[2:6, 7].all()


def squares(*boxes: tuple[int, int, int, int], crowd: int | None = None) -> CocoFile:
    truth = CocoFile.with_categories({1: "dog"})
    image_id = truth.add_image("a.jpg", (40, 60))
    for k, (x0, y0, x1, y1) in enumerate(boxes):
        outline = [[x0, y0, x1, y0, x1, y1, x0, y1]]
        row = {"image_id": image_id, "category_id": 1, "segmentation": outline, "iscrowd": int(k == crowd)}
        truth.add_annotations([row])
    return truth


def test_the_truth_meets_itself_and_a_shift_as_far_as_the_tolerance() -> None:
    truth, moved = squares((10, 10, 30, 30)), squares((12, 10, 32, 30))
    true, shifted = (mark_true_edges(file)[1][0] for file in (truth, moved))
    assert [score.f for score in evaluate_boundaries(truth, [(1, true)])] == [1, 1, 1]
    scores = evaluate_boundaries(truth, [(1, shifted)])
    assert scores[0].f is not None and 0.3 < scores[0].f < 0.7  # the two sides across are off by 2 px
    assert [score.f for score in scores[1:]] == [1, 1]


def test_no_edge_counts_in_a_crowd() -> None:
    truth = squares((0, 0, 20, 20), (30, 10, 50, 30), crowd=1)
    said = mark_true_edges(squares((0, 0, 20, 20), (35, 15, 45, 25)))[1][0]
    assert [score.f for score in evaluate_boundaries(truth, [(1, said)])] == [1, 1, 1]


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(InputError, match="expected tolerances of at least 0 px, got "):
        BoundaryScorer([-1])
    with pytest.raises(InputError, match="expected the id of an image of the truth, got 7; it has 1 images"):
        evaluate_boundaries(squares((0, 0, 9, 9)), [(7, NONE)])
    with pytest.raises(InputError, match=r"expected edges of one size \(H, W\), got \(12, 17\) and \(40, 60\)"):
        evaluate_boundaries(squares((0, 0, 9, 9)), [(1, NONE)])
