"""Suppression by masks against a plain loop, and against the one on run lengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from annofree.detections import nms
from annofree.detections.nms import compute_mask_ious, suppress, suppress_masks
from annofree.errors import InputError
from annofree.structures import Detections


def blobs(count: int, seed: int, size: tuple[int, int] = (23, 31)) -> Tensor:
    """Rectangles with a few pixels missing, many of which overlap; one is empty."""
    rng, masks = np.random.default_rng(seed), np.zeros((count, *size), bool)
    for mask in masks[1:]:
        y, x = rng.integers(0, size[0] - 6), rng.integers(0, size[1] - 6)
        mask[y : y + rng.integers(3, 12), x : x + rng.integers(3, 12)] = True
    return torch.from_numpy(masks & (rng.random(masks.shape) > 0.1))


def iou(one: Tensor, other: Tensor) -> float:
    return int((one & other).sum()) / max(1, int((one | other).sum()))


def loop(masks: Tensor, scores: list[float], ids: list[int], most: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], -i)):
        if all(ids[i] != ids[j] or iou(masks[i], masks[j]) <= most for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("most", [0.0, 0.3, 0.5, 1.0])
def test_what_a_loop_keeps(seed: int, most: float) -> None:
    rng, masks = np.random.default_rng(seed), blobs(30, seed)
    ids = rng.integers(0, 3, 30).tolist()
    scores = rng.choice([0.25, 0.5, 0.75] if seed % 2 else np.linspace(0, 1, 1000), 30).tolist()  # ties, or none
    found = suppress_masks(masks, torch.tensor(scores), torch.tensor(ids), most)
    assert found.tolist() == loop(masks, scores, ids, most)
    assert suppress_masks(masks, torch.tensor(scores), None, most).tolist() == loop(masks, scores, [0] * 30, most)


def test_what_run_lengths_keep() -> None:
    masks, scores = blobs(25, 7)[1:], np.linspace(0.1, 0.9, 24, dtype=np.float32)
    found = Detections.from_masks(masks.numpy(), [0] * 24, scores, ["thing"])
    kept = suppress_masks(masks, torch.from_numpy(scores), None, 0.3)
    assert 1 < len(kept) < 24
    assert np.array_equal(suppress(found, within=0.3).masks, masks[kept].numpy())


def test_ious_are_exact_however_many_pixels_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = blobs(12, 1)
    whole = compute_mask_ious(masks)
    expected = torch.tensor([[iou(a, b) for b in masks] for a in masks], dtype=torch.float64)
    torch.testing.assert_close(whole, expected, atol=2e-7, rtol=0)  # a ten-millionth of a pixel is added to each union
    monkeypatch.setattr(nms, "_AT_ONCE", 12 * 50)
    assert torch.equal(compute_mask_ious(masks), whole)  # counts are whole numbers, in any order of sums


def test_of_equals_the_last_comes_first() -> None:
    masks = torch.ones(3, 2, 2, dtype=torch.bool)
    assert suppress_masks(masks, torch.tensor([0.5, 0.5, 0.4]), None, 0.3).tolist() == [1]


def test_no_masks() -> None:
    none = torch.zeros(0, 4, 4, dtype=torch.bool)
    assert suppress_masks(none, torch.zeros(0), torch.zeros(0, dtype=torch.long), 0.3).tolist() == []


def test_numbers_have_to_agree() -> None:
    with pytest.raises(InputError, match="a score and a class id a mask, got 3 masks, 2 and 3"):
        suppress_masks(blobs(3, 0), torch.zeros(2), torch.zeros(3), 0.3)
