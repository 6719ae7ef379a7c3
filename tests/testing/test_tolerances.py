"""The table of tolerances: what it lets pass, and what it does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from annofree.testing.tolerances import TOLERANCES, Depth, assert_close, assert_same_masks, assert_same_pixels


@pytest.mark.parametrize(("dtype", "depth"), TOLERANCES)
def test_each_row_allows_what_it_says_and_no_more(dtype: torch.dtype, depth: Depth) -> None:
    within = TOLERANCES[dtype, depth]
    expected = torch.tensor([0.0, 4.0], dtype=torch.float64)
    allowed = within.absolute + within.relative * expected
    assert_close(expected + 0.9 * allowed, expected, dtype=dtype, depth=depth)
    for k in (0, 1):
        beyond = expected.clone()
        beyond[k] += 1.1 * allowed[k]
        with pytest.raises(AssertionError, match="not close"):
            assert_close(beyond, expected, dtype=dtype, depth=depth)


def test_deeper_and_shorter_numbers_are_allowed_more() -> None:
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    for depth in ("operation", "network"):
        allowed = [TOLERANCES[kind, depth].relative for kind in kinds]
        assert allowed == sorted(allowed)
    assert all(TOLERANCES[kind, "operation"].relative < TOLERANCES[kind, "network"].relative for kind in kinds)


def test_integers_and_truth_values_are_equal_or_not() -> None:
    assert_close(np.arange(3), np.arange(3))
    for other in (np.array([0, 1, 3]), np.array([True, False, False])):
        with pytest.raises(AssertionError):
            assert_close(other[::-1], other)


def test_a_message_says_what_was_compared() -> None:
    with pytest.raises(AssertionError, match=r"^scores of dog: "):
        assert_close(1.0, 2.0, message="scores of dog")
    with pytest.raises(AssertionError):
        assert_close(torch.ones(2), torch.ones(3))


def test_masks_may_differ_at_their_edge() -> None:
    mask = np.zeros((2, 40, 40), bool)
    mask[0, 5:35, 5:35] = True  # the other is empty, and so is its twin
    nearly, off = mask.copy(), mask.copy()
    nearly[0, 5, 5:20] = False  # 15 of 900 px
    off[0, 5] = False  # 30 of them
    assert_same_masks(nearly, mask)
    for wrong in (off, mask[:1]):
        with pytest.raises(AssertionError, match="expected masks"):
            assert_same_masks(wrong, mask)


def test_few_pixels_may_have_another_label() -> None:
    labels = np.zeros((50, 50), int)
    one, many = labels.copy(), labels.copy()
    one[0, :2], many[0, :3] = 1, 1
    assert_same_pixels(one, labels)
    for wrong in (many, labels[1:]):
        with pytest.raises(AssertionError, match="pixels"):
            assert_same_pixels(wrong, labels)
