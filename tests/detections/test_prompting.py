"""SAM in steps, on a masker that draws by script: what was asked, and what stays where nothing is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.support.prompts import plain_prompts

from annofree.detections.prompting import draw_masks
from annofree.protocols import Embedding, PromptedMasks
from annofree.structures import BoolArray
from annofree.testing.fakes import FakeSam

SIZE = (20, 30)
COARSE = np.array([[1, 2, 9, 8], [12, 3, 22, 15]], np.float32)
Box = tuple[int, int, int, int]


def filled(*boxes: Box | None) -> BoolArray:
    """Filled boxes x0 y0 x1 y1, (N, 20, 30); None is an empty mask."""
    masks = np.zeros((len(boxes), *SIZE), bool)
    for mask, box in zip(masks, boxes, strict=True):
        if box:
            mask[box[1] : box[3], box[0] : box[2]] = True
    return masks


class Scripted(FakeSam):
    """Gives one answer (P, H, W) after the other, with two worse masks of each prompt behind it."""

    def __init__(self, *answers: BoolArray) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[Any, Any]] = []

    def predict_masks(self, embedding: Embedding, **prompts: Any) -> PromptedMasks:
        assert embedding.size == SIZE
        self.asked.append(plain_prompts(prompts))
        answer = self.answers.pop(0)
        masks = torch.from_numpy(np.stack([answer, ~answer, ~answer], 1))
        return PromptedMasks(masks, torch.ones(masks.shape[:2]))


EMBEDDING = Embedding(SIZE, ())
FIRST = filled((0, 2, 10, 8), (14, 4, 20, 16))
SECOND = filled((0, 0, 12, 8), (13, 4, 20, 19))


def test_one_step_draws_the_coarse_boxes() -> None:
    sam = Scripted(FIRST)
    assert np.array_equal(draw_masks(sam, EMBEDDING, COARSE, "one-step", "point")[0], FIRST)
    assert sam.asked == [(COARSE.tolist(), None)]


def test_the_second_step_asks_at_the_centre_of_the_refined_box() -> None:
    sam = Scripted(FIRST, SECOND)
    assert np.array_equal(draw_masks(sam, EMBEDDING, COARSE, "two-step", "point")[0], SECOND)
    assert sam.asked[1:] == [(None, [[5.0, 5.0], [17.0, 10.0]])]


def test_the_second_step_may_see_the_refined_box_as_well() -> None:
    sam = Scripted(FIRST, SECOND)
    draw_masks(sam, EMBEDDING, COARSE, "two-step", "box+point")
    assert sam.asked[1:] == [([[0.0, 2.0, 10.0, 8.0], [14.0, 4.0, 20.0, 16.0]], [[5.0, 5.0], [17.0, 10.0]])]


def test_where_the_first_step_draws_nothing_the_coarse_box_is_refined() -> None:
    sam = Scripted(filled(None, (14, 4, 20, 16)), SECOND)
    assert np.array_equal(draw_masks(sam, EMBEDDING, COARSE, "two-step", "box+point")[0], SECOND)
    assert sam.asked[1:] == [([[1.0, 2.0, 9.0, 8.0], [14.0, 4.0, 20.0, 16.0]], [[5.0, 5.0], [17.0, 10.0]])]


def test_where_the_second_step_draws_nothing_the_first_stays() -> None:
    sam = Scripted(FIRST, filled((0, 0, 12, 8), None))
    found, quality = draw_masks(sam, EMBEDDING, COARSE, "two-step", "point")
    assert np.array_equal(found, np.stack([SECOND[0], FIRST[1]]))
    assert quality.tolist() == [1, 1]


@pytest.mark.parametrize("steps", [1, 2])
def test_where_no_step_draws_the_mask_is_empty(steps: int) -> None:
    sam = Scripted(filled(None, None), filled(None, None))
    found, quality = draw_masks(sam, EMBEDDING, COARSE, "one-step" if steps == 1 else "two-step", "box+point")
    assert found.shape == (2, *SIZE)
    assert not found.any() and quality.shape == (2,)
    assert len(sam.asked) == steps


def test_no_boxes_give_no_masks_and_no_second_step() -> None:
    sam = Scripted(filled())
    found, quality = draw_masks(sam, EMBEDDING, np.zeros((0, 4), np.float32), "two-step", "point")
    assert (found.shape, str(found.dtype), len(sam.asked)) == ((0, *SIZE), "bool", 1)
    assert quality.shape == (0,)


def test_equal_prompts_are_asked_once() -> None:
    sam = Scripted(FIRST, SECOND)
    thrice = COARSE[[1, 0, 1]]
    masks, quality = draw_masks(sam, EMBEDDING, thrice, "two-step", "box+point")
    assert sam.asked[0] == ([COARSE[1].tolist(), COARSE[0].tolist()], None)
    assert len(sam.asked[1][0]) == len(sam.asked[1][1]) == 2
    assert np.array_equal(masks, SECOND[[0, 1, 0]]) and len(quality) == 3


def test_boxes_that_come_to_one_centre_are_asked_there_once() -> None:
    sam = Scripted(FIRST[[0, 0]], SECOND[:1])
    masks, _ = draw_masks(sam, EMBEDDING, COARSE, "two-step", "point")
    assert sam.asked[1] == (None, [[5.0, 5.0]])
    assert np.array_equal(masks, SECOND[[0, 0]])
