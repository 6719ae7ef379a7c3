"""Non-maximum suppression by masks: of two that cover the same pixels the weaker goes."""

from __future__ import annotations

import torch
from torch import Tensor

from annofree.errors import InputError

__all__ = ["kept_masks", "mask_ious"]

_AT_ONCE = 2**25  # values in memory, 128 MiB
_EPS = 1e-7


def mask_ious(masks: Tensor) -> Tensor:
    """The IoU of each pair of masks (N, H, W) bool, (N, N): their intersections are a product of the flattened masks.

    It is summed over stretches of pixels, so that masks of any size fit into memory.  Counts are exact; an empty mask has an
    IoU of 0 with all.
    """
    count, flat = len(masks), masks.flatten(1)
    shared = torch.zeros(count, count, dtype=torch.float64, device=masks.device)
    step = max(1, min(_AT_ONCE // max(1, count), 2**24))  # up to 2^24 float32 counts exactly
    for start in range(0, flat.shape[1], step):
        values = flat[:, start : start + step].float()
        shared += values @ values.T
    area = shared.diagonal()
    return shared / (area[:, None] + area - shared + _EPS)


def kept_masks(masks: Tensor, scores: Tensor, class_ids: Tensor | None, most: float) -> Tensor:
    """Which of masks (N, H, W) bool stay, strongest first: each that has no IoU over ``most`` with a kept one of its class.

    ``scores`` (N) and ``class_ids`` (N) go with them; without class ids all are of one class.  Of equal scores the last comes
    first (ZUTIS, as released).  Raises InputError where the numbers of masks, scores and class ids differ.

    >>> masks = torch.tensor([[[1, 1, 0, 0]], [[1, 1, 1, 0]], [[0, 0, 0, 1]]]).bool()
    >>> kept_masks(masks, torch.tensor([0.5, 0.9, 0.7]), None, 0.3).tolist()
    [1, 2]
    """
    ids = torch.zeros(len(masks), dtype=torch.long) if class_ids is None else class_ids
    if not len(masks) == len(scores) == len(ids):
        raise InputError(f"expected a score and a class id a mask, got {len(masks)} masks, {len(scores)} and {len(ids)}")
    order = torch.argsort(scores, stable=True).flip(0)
    gone = torch.zeros(len(order), dtype=torch.bool)
    for one in sorted(set(ids.tolist())):
        ranks = torch.nonzero((ids == one).to(order.device)[order])[:, 0]
        if len(ranks) > 1:
            gone[ranks.cpu()] = _weaker(mask_ious(masks[order[ranks]]).cpu() > most)
    return order[~gone.to(order.device)]


def _weaker(clash: Tensor) -> Tensor:
    """Which of N things, strongest first, clash (N, N) with a stronger one that stays, (N) bool."""
    gone = torch.zeros(len(clash), dtype=torch.bool)
    for rank in range(len(clash)):
        if not gone[rank]:
            gone[rank + 1 :] |= clash[rank, rank + 1 :]
    return gone
