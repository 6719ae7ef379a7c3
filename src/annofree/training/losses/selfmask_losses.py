"""What SelfMask learns from (Shin et al., CVPRW 2022): dice of every query with one mask, and which queries do better.

B images, L decoder layers, Q queries, h w cells of a proposal, H W pixels.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from annofree.features.selfmask_network import SelfMaskOutput

__all__ = ["Ranking", "compute_dice_losses", "compute_ranking_loss", "compute_selfmask_losses"]

Ranking = Literal["paper", "released", "official"]
"""Which order costs: of the ``paper``, a worse mask with the larger objectness; ``released``, a better one, the reverse.

``official`` is all of the released criterion: that reverse, summed over pairs where the others take the mean, and masks
enlarged to the truth and compared there, where the others bring the truth to their cells.
"""


def compute_dice_losses(masks: Tensor, truth: Tensor) -> Tensor:
    """One minus dice of proposals (B, L, Q, h, w) with one mask an image (B, h, w), both in 0 .. 1, (B, L, Q).

    One is added to numerator and denominator, so that two empty masks agree.
    """
    there = truth[:, None, None]
    both, all_of_both = (masks * there).sum((3, 4)), masks.sum((3, 4)) + there.sum((3, 4))
    return 1 - (2 * both + 1) / (all_of_both + 1)


def compute_ranking_loss(dice: Tensor, objectness: Tensor, order: Ranking = "paper") -> Tensor:
    """How far objectness (..., Q) orders queries otherwise than their dice losses (..., Q) do, (...): the mean over pairs.

    With ``official`` it is the sum.  A pair in which one query's mask is worse costs what its objectness is above the other's,
    without a margin.  That is what the paper means, and what choosing the largest objectness needs; the released criterion
    penalizes the reverse.  Dice is only compared, no gradient goes through it.

    >>> import torch
    >>> dice, right = torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.8, 0.5, 0.2])
    >>> float(compute_ranking_loss(dice, right)), float(compute_ranking_loss(dice, right, "released")) > 0
    (0.0, True)
    """
    worse = dice.detach()[..., :, None] > dice.detach()[..., None, :]
    ahead = objectness[..., :, None] - objectness[..., None, :]
    cost = F.relu(ahead if order == "paper" else -ahead) * worse
    total = cost.sum((-2, -1))
    return total if order == "official" else total / worse.sum((-2, -1)).clamp(min=1)


def compute_selfmask_losses(out: SelfMaskOutput, truth: Tensor, order: Ranking = "paper") -> dict[str, Tensor]:
    """The losses of a batch for one mask an image (B, H, W) in 0 .. 1: summed over layers, dice over queries too, mean over B.

    Masks are compared on the proposals' own cells, which hold the share of the mask in them, or, ``official``, at the size of
    the truth.
    """
    masks = out.masks
    if order == "official":
        layers = F.interpolate(masks.flatten(0, 1), size=truth.shape[-2:], mode="bilinear", align_corners=False)
        masks = layers.view(*masks.shape[:3], *truth.shape[-2:])
    else:
        h, w = masks.shape[-2:]
        truth = F.adaptive_avg_pool2d(truth[:, None], (h, w))[:, 0]
    dice = compute_dice_losses(masks, truth)
    ranking = compute_ranking_loss(dice, out.objectness, order)
    return {"dice": dice.sum((1, 2)).mean(), "ranking": ranking.sum(1).mean()}
