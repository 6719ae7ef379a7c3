"""What a set of mask proposals is worth beside a set of instances, and label maps beside cosines: ZUTIS's two losses.

B images, L decoder layers, Q proposals, N instances (of one image), M matched pairs, P pixels, D embedding, K classes.

Proposals are matched to instances one to one, at each layer by itself, such that dice plus cross-entropy is least, as in DETR;
only matched proposals are then told anything.  Sources: ZUTIS (Shin et al., CVPRW 2023), equation 3, and its official code,
which sums over instances and layers, divides by the images only, and has no "no object" term and no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from annofree.errors import InputError

__all__ = [
    "MatchedPairs",
    "SetLoss",
    "compute_pairwise_bce",
    "compute_pairwise_cost",
    "compute_pairwise_dice",
    "compute_semantic_loss",
    "compute_set_loss",
    "match_pairs",
]

_AT_ONCE = 2**24  # values in memory, 64 MiB
_LEAST_LOG = -100.0  # torch's own bound in binary cross-entropy: a proposal of exactly 0 or 1 costs no infinity


class MatchedPairs(NamedTuple):
    """Who was matched to whom, as indices (M) each: ``images``, ``layers``, ``proposals``, ``instances`` within their image."""

    images: Tensor
    layers: Tensor
    proposals: Tensor
    instances: Tensor


class SetLoss(NamedTuple):
    """The parts of the mask loss, scalars: two of matched proposals, and the cross-entropy to nothing of all the others."""

    dice: Tensor
    bce: Tensor
    empty: Tensor


def compute_pairwise_dice(proposals: Tensor, instances: Tensor) -> Tensor:
    """One minus the dice coefficient of each pair, (..., Q, N), of proposals (..., Q, P) and instances (..., N, P) of 0 and 1.

    Proposals are in 0 .. 1.  One is added to numerator and denominator, so that two empty masks agree.

    >>> compute_pairwise_dice(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]))
    tensor([[0.2500, 0.0000]])
    """
    both = proposals @ instances.mT
    return 1 - (2 * both + 1) / (proposals.sum(-1)[..., :, None] + instances.sum(-1)[..., None, :] + 1)


def compute_pairwise_bce(proposals: Tensor, instances: Tensor) -> Tensor:
    """Binary cross-entropy of each pair, the mean over pixels, (..., Q, N): two products in place of Q x N x P numbers.

    Proposals (..., Q, P) are in 0 .. 1, instances (..., N, P) of 0 and 1.  Logarithms are bounded at -100, as in torch.
    """
    inside = proposals.log().clamp_(min=_LEAST_LOG) @ instances.mT
    outside = proposals.neg().log1p_().clamp_(min=_LEAST_LOG) @ (1 - instances).mT
    return -(inside + outside) / proposals.shape[-1]


def compute_pairwise_cost(proposals: Tensor, instances: Tensor) -> Tensor:
    """What matching minimizes, (..., Q, N): dice plus binary cross-entropy, of equal weight."""
    return compute_pairwise_dice(proposals, instances) + compute_pairwise_bce(proposals, instances)


def compute_set_loss(proposals: Tensor, instances: Sequence[Tensor]) -> SetLoss:
    """Match proposals (B, L, Q, h, w) in 0 .. 1 to each image's instances (N, H, W) bool and sum the loss of the pairs.

    Proposals are brought to the instances' size, bilinear, as probabilities.  Sums run over pairs and layers and are divided
    by B alone.  An image whose instances are all empty is passed over; beside others, an empty instance takes a proposal and
    costs something, as in the official code.  Raises InputError where images and their instances do not go together.
    """
    _check(proposals, instances)
    with torch.autocast(proposals.device.type, enabled=False):
        proposals = proposals.float()
        pairs = match_pairs(proposals, instances)
        empty = _compute_empty_loss(proposals, pairs)
        if not len(pairs.images):
            nothing = proposals.sum() * 0  # of use to distributed training, where each parameter has to get a gradient
            return SetLoss(nothing, nothing, empty)
        truth = _truth(instances, pairs)
        p = _resized(proposals[pairs.images, pairs.layers, pairs.proposals], _size(truth)).flatten(1)
        truth = truth.flatten(1)
        dice = 1 - (2 * (p * truth).sum(1) + 1) / (p.sum(1) + truth.sum(1) + 1)
        bce = F.binary_cross_entropy(p, truth, reduction="none").mean(1)
        return SetLoss(dice.sum() / len(proposals), bce.sum() / len(proposals), empty)


def _compute_empty_loss(proposals: Tensor, pairs: MatchedPairs) -> Tensor:
    """Cross-entropy to 0 of the proposals (B, L, Q, h, w) that no pair has, the sum over layers of each one's mean, over B."""
    free = torch.ones(proposals.shape[:3], device=proposals.device)
    free[pairs.images, pairs.layers, pairs.proposals] = 0
    cost = F.binary_cross_entropy(proposals, torch.zeros_like(proposals), reduction="none").mean((-2, -1))
    return (cost * free).sum() / len(proposals)


@torch.no_grad()
def match_pairs(proposals: Tensor, instances: Sequence[Tensor]) -> MatchedPairs:
    """Match the proposals (B, L, Q, h, w) of each image and layer to its instances (N, H, W) bool at the least total cost.

    All costs come from the device in one copy, however many images and layers there are.  With more instances than proposals
    the dearest instances stay alone; where all instances of an image are empty, all do.  Raises InputError for proposals that
    are not numbers.
    """
    most = max((len(i) for i in instances), default=0)
    costs = proposals.new_zeros(*proposals.shape[:3], most)
    if most:
        truth = pad_sequence([i.flatten(1) for i in instances], batch_first=True).to(proposals)
        images, layers = (t.flatten() for t in torch.meshgrid(*map(torch.arange, proposals.shape[:2]), indexing="ij"))
        at_once = max(1, _AT_ONCE // (proposals.shape[2] * truth.shape[-1]))
        for image, layer in zip(torch.split(images, at_once), torch.split(layers, at_once), strict=True):
            drawn = _resized(proposals[image, layer], _size(instances[0])).flatten(2)
            costs[image, layer] = compute_pairwise_cost(drawn, truth[image])
        costs += torch.where(truth.flatten(1).any(1), 0.0, torch.inf)[:, None, None, None]
    pairs = _assigned(costs.cpu().numpy(), [len(i) for i in instances])
    return MatchedPairs(*torch.from_numpy(pairs).to(proposals.device))


def _assigned(costs: npt.NDArray[np.float32], counts: Sequence[int]) -> npt.NDArray[np.int64]:
    """The assignment of each table of ``costs`` (B, L, Q, most), of which an image's first columns count: indices (4, M).

    An image whose costs are infinite has nothing to be matched to.
    """
    if np.isnan(costs).any():
        raise InputError("expected proposals in 0 .. 1, got some that are not numbers; a lower learning rate may help")
    found = [np.zeros((4, 0), np.int64)]
    for image, count in enumerate(counts):
        if not count or np.isinf(costs[image, 0, 0, 0]):
            continue
        for layer, table in enumerate(costs[image]):
            rows, columns = linear_sum_assignment(table[:, :count])
            found.append(np.stack([np.full_like(rows, image), np.full_like(rows, layer), rows, columns]))
    return np.concatenate(found, 1)


def compute_semantic_loss(
    features: Tensor, words: Tensor, labels: Tensor, *, ignored: int = 255, counted: Tensor | None = None
) -> Tensor:
    """Cross-entropy of raw cosines, without a temperature, to labels (B, H, W): the mean over pixels that are not ``ignored``.

    Features (B, D, h, w) and words (K, D) are unit vectors.  The official code brings the features to the labels' size and
    then meets the words; both steps are linear, so meeting the words first gives the same, up to rounding, for a fraction of
    the work.
    ``counted`` is what the sum is divided by, where that is not the number of these pixels (the mean over processes).
    """
    with torch.autocast(features.device.type, enabled=False):
        cosines = torch.einsum("kd,bdhw->bkhw", words.float(), features.float())
        logits = _resized(cosines, _size(labels))
        total = F.cross_entropy(logits, labels, ignore_index=ignored, reduction="sum")
        return total / ((labels != ignored).sum() if counted is None else counted).clamp(min=1)


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (..., h, w) at another size, bilinear; the one before the grid may be missing."""
    flat = maps if maps.ndim == 4 else maps[:, None]
    found = F.interpolate(flat, size=size, mode="bilinear", align_corners=False)
    return found if maps.ndim == 4 else found[:, 0]


def _size(maps: Tensor) -> tuple[int, int]:
    return int(maps.shape[-2]), int(maps.shape[-1])


def _truth(instances: Sequence[Tensor], pairs: MatchedPairs) -> Tensor:
    """The instance of each pair, (M, H, W) float."""
    starts = np.cumsum([0, *(len(i) for i in instances)])[:-1]
    at = torch.from_numpy(starts).to(pairs.images.device)[pairs.images] + pairs.instances
    return torch.cat([i for i in instances if len(i)])[at].to(torch.float32)


def _check(proposals: Tensor, instances: Sequence[Tensor]) -> None:
    if proposals.ndim != 5 or len(proposals) != len(instances):
        shape = tuple(proposals.shape)
        raise InputError(f"expected proposals (B, L, Q, h, w) with the instances of B images, got {shape} and {len(instances)}")
    sizes = {tuple(i.shape[-2:]) for i in instances}
    if any(i.ndim != 3 for i in instances) or len(sizes) > 1:
        got = ", ".join(str(tuple(i.shape)) for i in instances)
        raise InputError(f"expected instances (N, H, W) of one size, got {got}")
