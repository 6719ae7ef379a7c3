"""Overlaps that are just at a threshold stay: each limit is the most that is allowed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from annofree.detections.nms import Overlaps, drop_claimed, suppress, suppress_masks
from annofree.structures import Detections

Masks = npt.NDArray[np.bool_]
JUST_LESS = float(np.nextafter(0.5, 0))


def stretches(*spans: tuple[int, int]) -> Masks:
    """Masks (N, 1, 26) of one row, each from a column up to another."""
    masks = np.zeros((len(spans), 1, 26), bool)
    for mask, (start, end) in zip(masks, spans, strict=True):
        mask[0, start:end] = True
    return masks


def found(masks: Masks, ids: list[int]) -> Detections:
    scores = np.linspace(0.9, 0.8, len(masks), dtype=np.float32)
    return Detections.from_masks(masks, ids, scores, ["cat", "dog"])


HALF = stretches((0, 8), (0, 4))  # an IoU of 4/8
PART = stretches((0, 8), (6, 10))  # 2 px of the 4 of the second lie in the first
ONE, TWO = [0, 0], [0, 1]


@pytest.mark.parametrize(("limit", "left"), [(0.5, 2), (JUST_LESS, 1)])
@pytest.mark.parametrize(
    ("masks", "ids", "name"),
    [(HALF, ONE, "within"), (HALF, TWO, "across"), (PART, ONE, "inside"), (PART, TWO, "inside_across")],
)
def test_two_that_overlap_as_much_as_they_may_stay(masks: Masks, ids: list[int], name: str, limit: float, left: int) -> None:
    two = found(masks, ids)
    assert len(Overlaps(**{name: limit}).apply(two)) == left  # type: ignore[arg-type]
    if name != "inside_across":
        assert len(suppress(two, **{name: limit})) == left


@pytest.mark.parametrize(("limit", "left"), [(0.5, 1), (JUST_LESS, 0)])
def test_a_claim_needs_more_than_its_limit(limit: float, left: int) -> None:
    weak, strong = Detections.from_masks(HALF[:1], [0], [0.5], ["cat"]), Detections.from_masks(HALF[1:], [0], [0.6], ["wall"])
    assert len(drop_claimed(weak, strong, limit)) == left
    equal = Detections.from_masks(HALF[1:], [0], [0.5], ["wall"])
    assert len(drop_claimed(weak, equal, JUST_LESS)) == 1


WHOLE = (0, 12)


@pytest.mark.parametrize(
    ("spans", "pair", "left"),
    [
        ((WHOLE, (0, 6), (6, 12)), 0.99, 2),
        (((0, 16), (0, 6), (7, 13)), 0.75, 3),  # 12 px of 16
        (((0, 16), (0, 6), (7, 13)), float(np.nextafter(0.75, 0)), 2),
        ((WHOLE, (0, 4), (6, 12)), 0.5, 3),  # the first part is just a third of the whole
        (((0, 24), (0, 18), (16, 25)), 0.5, 3),  # the first part is just three quarters of it, the second mostly in it
        ((WHOLE, (0, 6), (5, 10)), 0.5, 3),  # the parts share just a tenth
    ],
)
def test_two_in_one_at_their_limits(spans: tuple[tuple[int, int], ...], pair: float, left: int) -> None:
    three = found(stretches(*spans), [0, 0, 0])
    assert len(Overlaps(pair=pair).apply(three)) == left


def test_a_part_that_lies_just_four_fifths_in_the_whole_is_none() -> None:
    masks = np.zeros((3, 1, 20), bool)
    masks[0, 0, :12], masks[1, 0, :5], masks[2, 0, 8:13] = True, True, True  # of the last, 4 px of 5
    assert len(Overlaps(pair=0.5).apply(found(masks, [0, 0, 0]))) == 3


def test_parts_may_be_just_half_as_strong_as_the_whole() -> None:
    masks = stretches(WHOLE, (0, 6), (6, 12))
    for weakest, left in ((0.25, 2), (0.125, 3)):
        three = Detections.from_masks(masks, [0, 0, 0], [0.5, 0.375, weakest], ["cat"])
        assert len(Overlaps(pair=0.5).apply(three)) == left


@pytest.mark.parametrize(
    ("masks", "most", "left"),
    [(stretches((0, 4), (6, 10)), 0.0, 2), (stretches((0, 4), (3, 10)), 0.0, 1), (HALF, 0.5, 2), (HALF, JUST_LESS - 1e-6, 1)],
)
def test_suppression_of_tensors_keeps_what_is_just_allowed(masks: Masks, most: float, left: int) -> None:
    """Two that share no pixel have an IoU of exactly 0; all others lie a rounding below theirs, by the released code."""
    assert len(suppress_masks(torch.from_numpy(masks), torch.tensor([0.9, 0.8]), None, most)) == left
