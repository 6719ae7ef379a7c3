"""Clues by hand: cosines less what says nothing, activations, and the demo's threshold."""

from __future__ import annotations

import pytest
import torch

from annofree.clues.similarity import compute_cosine_clues, mark_active_cells, stretch_to_unit
from annofree.structures import FeatureMap
from annofree.testing.tolerances import assert_close


def test_a_clue_is_the_cosine_less_that_of_the_neutral_text() -> None:
    """Cells (0.6, 0.8), (1, 0) and (0, 1); words (1, 0) and (0, 1); neutral (0.25, 0.5)."""
    tokens = FeatureMap(torch.tensor([[[0.6, 1.0, 0.0]], [[0.8, 0.0, 1.0]]]), (10, 30))
    clues = compute_cosine_clues(tokens, torch.eye(2), torch.tensor([0.25, 0.5]))
    assert (clues.size, clues.meaning) == ((10, 30), "cosine")
    expected = torch.tensor([[[0.05, 0.75, -0.5]], [[0.25, -0.25, 0.5]]])
    assert_close(clues.values, expected)


def test_the_neutral_text_shifts_all_classes_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = FeatureMap(torch.randn(8, 3, 5, generator=generator), (30, 50))
    words, neutral = torch.randn(4, 8, generator=generator), torch.randn(8, generator=generator)
    moved = compute_cosine_clues(tokens, words, torch.zeros(8)).values - compute_cosine_clues(tokens, words, neutral).values
    assert_close(moved, moved[:1].expand_as(moved))


def test_one_class_does_not_depend_on_the_others() -> None:
    generator = torch.Generator().manual_seed(1)
    tokens = FeatureMap(torch.randn(8, 3, 5, generator=generator), (30, 50))
    words, neutral = torch.randn(4, 8, generator=generator), torch.randn(8, generator=generator)
    together = stretch_to_unit(compute_cosine_clues(tokens, words, neutral).values)
    alone = stretch_to_unit(compute_cosine_clues(tokens, words[2:3], neutral).values)
    assert_close(together[2:3], alone)


def test_an_activation_runs_from_0_to_1_over_each_map() -> None:
    values = torch.tensor([[[-3.0, -1.0], [1.0, 5.0]], [[0.1, 0.2], [0.3, 0.1]]])
    stretched = stretch_to_unit(values)
    assert_close(stretched, torch.tensor([[[0.0, 0.25], [0.5, 1.0]], [[0.0, 0.5], [1.0, 0.0]]]))
    assert_close(stretch_to_unit(values * 7 - 2), stretched)


@pytest.mark.parametrize("value", [0.0, 0.5, -2.0, 1e30])
def test_a_flat_map_suggests_nothing(value: float) -> None:
    assert stretch_to_unit(torch.full((2, 3, 4), value)).tolist() == torch.zeros(2, 3, 4).tolist()


def test_a_hair_of_difference_is_no_division_by_zero() -> None:
    values = torch.tensor([[[0.0, 1e-45]]])
    assert bool(stretch_to_unit(values).isfinite().all())


def test_activation_of_no_classes() -> None:
    assert stretch_to_unit(torch.zeros(0, 3, 4)).shape == (0, 3, 4)


def test_cells_above_seven_tenths_of_the_mean_are_active() -> None:
    """The mean of the first map is 0.5, so its threshold is 0.35; the second map's own is 0.07."""
    full = torch.tensor([[[0.2, 0.36], [0.44, 1.0]], [[0.0, 0.0], [0.0, 0.4]]])
    active = mark_active_cells(full, (2, 2))
    assert active.dtype == torch.bool
    assert active.tolist() == [[[False, True], [True, True]], [[False, False], [False, True]]]


def test_equality_is_not_enough_to_be_active() -> None:
    assert mark_active_cells(torch.zeros(1, 2, 2), (2, 2)).tolist() == [[[False, False], [False, False]]]


def test_a_cell_looks_at_one_pixel_and_the_mean_at_all() -> None:
    """3 x 5 px on 2 x 2 cells: rows 0 and 1, columns 0 and 2."""
    full = torch.zeros(1, 3, 5)
    full[0, 1, 2] = 1.0
    assert mark_active_cells(full, (2, 2)).tolist() == [[[False, False], [False, True]]]
    full[0, 1, 2], full[0, 2, 4] = 0.0, 1.0  # seen by the mean only
    assert not mark_active_cells(full, (2, 2)).any()
