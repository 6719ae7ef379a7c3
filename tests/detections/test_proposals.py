"""Masks without a name: the strongest of each thing, up to a number."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from annofree.detections import proposals as module
from annofree.detections.proposals import Proposals


def made(count: int = 40, seed: int = 0) -> Proposals:
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, 24, 24), bool)
    for mask in masks:
        y, x = rng.integers(0, 16, 2)
        mask[y : y + rng.integers(4, 9), x : x + rng.integers(4, 9)] = True
    return Proposals(masks, rng.random(count).astype(np.float32), rng.random(count).astype(np.float32))


def slow(found: Proposals, iou: float, most: int) -> list[int]:
    """One after the other, the strongest first, each against all that are kept."""
    kept: list[int] = []
    for i in np.argsort(-found.quality * found.stability, kind="stable").tolist():
        overlaps = [(found.masks[i] & found.masks[k]).sum() / (found.masks[i] | found.masks[k]).sum() for k in kept]
        if len(kept) < most and all(overlap <= iou for overlap in overlaps):
            kept.append(i)
    return kept


@pytest.mark.parametrize("block", [1, 7, 64])
@pytest.mark.parametrize(("iou", "most"), [(0.3, 100), (0.6, 5), (0.0, 100), (1.0, 3)])
def test_distinct_is_the_slow_twin(monkeypatch: pytest.MonkeyPatch, block: int, iou: float, most: int) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    found = made()
    kept = found.suppress(iou, most)
    expected = slow(found, iou, most)
    assert len(kept) == len(expected)
    assert np.array_equal(kept.quality, found.quality[expected]) and np.array_equal(kept.masks, found.masks[expected])


def test_small_large_and_empty_masks_are_left_out() -> None:
    masks = np.zeros((4, 10, 10), bool)
    masks[1, 0, 0], masks[2, :5], masks[3] = True, True, True
    found = Proposals(masks, np.ones(4, np.float32), np.ones(4, np.float32)).suppress(1.0, 9, least=0.02, largest=0.9)
    assert found.masks.sum((1, 2)).tolist() == [50]
    assert len(Proposals(masks[:1], np.ones(1, np.float32), np.ones(1, np.float32)).suppress(1.0, 9)) == 0


def test_answers_are_taken_one_by_one() -> None:
    masks = torch.zeros(2, 3, 4, 5, dtype=torch.bool)
    masks[1, 2] = True
    quality = torch.tensor([[0.1, 0.2, 1.2], [-0.1, 0.5, 0.6]])
    found = Proposals.of(masks, quality, None)
    assert found.masks.shape == (6, 4, 5) and found.masks[5].all() and not found.masks[:5].any()
    np.testing.assert_array_equal(found.quality, np.array([0.1, 0.2, 1.0, 0.0, 0.5, 0.6], np.float32))
    assert found.stability.tolist() == [1.0] * 6
    assert len(Proposals.joined([found, found])) == 12
