"""What the tiny DINO minimizes: three losses on the two readings of its last block, keys and the class token's attention.

B views, N patches, D embedding of a key, M matched patches.  ``ground`` (B, N) is the share of a patch that nothing was pasted
over; it is known because the views are pasted together, and says nothing of what is in the images.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["compute_attention_loss", "compute_ground_cosines", "compute_ground_loss", "compute_match_loss"]

_SLOPE = 8.0  # logits for a unit of cosine
_TEMPERATURE = 0.1  # of matches
_BARE = 0.95  # ground from which on a patch belongs to the mean


def compute_ground_cosines(keys: Tensor, ground: Tensor) -> Tensor:
    """Cosines (B, N) of keys (B, N, D) with the mean direction of all bare patches of all views."""
    units = F.normalize(keys, dim=2)
    return units @ F.normalize(units[ground > _BARE].sum(0), dim=0)


def compute_ground_loss(keys: Tensor, ground: Tensor) -> Tensor:
    """Cross-entropy of ``ground`` (B, N) to the sign of the cosines of keys (B, N, D) with the ground's mean key.

    One direction serves all views, so that ground is ground in any image: what TokenCut and FOUND's seed look for inside of
    one image, and FOUND's 1 x 1 head across images.
    """
    return F.binary_cross_entropy_with_logits(_SLOPE * compute_ground_cosines(keys, ground), ground)


def compute_attention_loss(attention: Tensor, ground: Tensor) -> Tensor:
    """Mean negative log of the share of attention (B, heads, N) to patches that falls on what was pasted.

    Views on which less than one patch in all was pasted are left out.
    """
    share = (attention * (1 - ground)[:, None]).sum(2) / attention.sum(2)
    there = (1 - ground).sum(1) >= 1
    return -share[there].clamp(min=1e-4).log().mean()


def compute_match_loss(here: Tensor, there: Tensor, images: Tensor) -> Tensor:
    """Cross-entropy of finding a pasted patch again, by the cosine of keys (M, D), in another view; both ways.

    Row i of ``here`` and of ``there`` is the same spot; ``images`` (M) says what image it was cut from.  Other spots of the
    same image are no mistakes to learn from: they may well look alike.
    """
    logits = F.normalize(here, dim=1) @ F.normalize(there, dim=1).T / _TEMPERATURE
    rows = torch.arange(len(here), device=here.device)
    same = (images[:, None] == images) & (rows[:, None] != rows)
    logits = logits.masked_fill(same, -torch.inf)
    return (F.cross_entropy(logits, rows) + F.cross_entropy(logits.T, rows)) / 2
