"""Matching of proposals to objects: training targets of region heads.

N proposals and M objects of one image, K names; the label K says that there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, distributed
from torch.nn import functional as F
from torchvision.ops import box_iou

from annofree.detectors.types import DetectionTargets

__all__ = [
    "MatchedProposals",
    "average_count",
    "compute_box_loss",
    "compute_class_loss",
    "drop_weights",
    "match_proposals",
    "sample_proposals",
    "weigh_proposals",
]


class MatchedProposals(NamedTuple):
    """What the proposals of one image should be seen as.

    ``boxes`` (N, 4); ``labels`` (N) int64 from 0 to K, K for nothing; ``matched`` (N) int64, the object of the greatest
    overlap, 0 where there are no objects; ``goals`` (N, 4), its box, or the proposal's own where there are none.
    """

    boxes: Tensor
    labels: Tensor
    matched: Tensor
    goals: Tensor

    def select(self, keep: Tensor) -> MatchedProposals:
        """Select proposals by indices or a boolean mask."""
        return MatchedProposals(*(part[keep] for part in self))


def match_proposals(boxes: Tensor, target: DetectionTargets, iou: float, names: int) -> MatchedProposals:
    """Match proposals (N, 4) to the objects they overlap most, by an IoU of ``iou`` or more; of equal ones to the first."""
    if not len(target.boxes):
        nothing = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        return MatchedProposals(boxes, nothing + names, nothing, boxes)
    overlap, matched = box_iou(boxes, target.boxes).max(1)
    labels = torch.where(overlap >= iou, target.labels[matched], names)
    return MatchedProposals(boxes, labels, matched, target.boxes[matched])


def sample_proposals(taught: MatchedProposals, names: int, count: int, positive: float) -> MatchedProposals:
    """Sample up to ``count`` proposals, at most a fraction ``positive`` of them on objects; missing ones are not replaced."""
    on = torch.where(taught.labels < names)[0]
    off = torch.where(taught.labels == names)[0]
    some = _drawn(on, min(len(on), int(count * positive)))
    return taught.select(torch.cat([some, _drawn(off, min(len(off), count - len(some)))]))


def _drawn(indices: Tensor, count: int) -> Tensor:
    # all of them stay in their order, so that nothing is drawn where there is nothing to choose
    return indices if count == len(indices) else indices[torch.randperm(len(indices), device=indices.device)[:count]]


def compute_class_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of logits (N, K + 1), weighted, divided by the number of all proposals."""
    each = F.cross_entropy(logits, labels, reduction="none")
    return (each if weights is None else each * weights).sum() / average_count(labels)


def compute_box_loss(
    deltas: Tensor,
    taught: Sequence[MatchedProposals],
    names: int,
    encode: Callable[[Tensor, Tensor], Tensor],
    weights: Tensor | None = None,
) -> Tensor:
    """L1 distance of deltas (N, 4) to those to the matched boxes, of proposals on objects, by the number of all proposals.

    ``encode(goals, boxes)`` gives deltas.  Dividing by all of them weighs every object alike (detectron2); ``weights`` (N) do
    otherwise.
    """
    labels, boxes, goals = (torch.cat([getattr(one, part) for one in taught]) for part in ("labels", "boxes", "goals"))
    on = torch.where(labels < names)[0]
    apart = (deltas[on] - encode(goals[on], boxes[on])).abs()
    loss: Tensor = (apart if weights is None else apart * weights[on, None]).sum() / average_count(labels)
    return loss


def weigh_proposals(taught: Sequence[MatchedProposals], targets: Sequence[DetectionTargets], names: int) -> Tensor | None:
    """The weight (N) of what each proposal is seen as, 1 for nothing; none where no target has weights."""
    if all(target.weights is None for target in targets):
        return None
    return torch.cat([_weigh(one, target, names) for one, target in zip(taught, targets, strict=True)])


def _weigh(taught: MatchedProposals, target: DetectionTargets, names: int) -> Tensor:
    ones = torch.ones(len(taught.boxes), device=taught.boxes.device)
    if target.weights is None or not len(target.weights):
        return ones
    return torch.where(taught.labels < names, target.weights.to(ones)[taught.matched], ones)


def drop_weights(boxes: Tensor, target: DetectionTargets, iou: float) -> Tensor:
    """0 for each box (N, 4) whose IoU with every object is ``iou`` or less, else 1 (CutLER's DropLoss).

    What no pseudo-label marks may be an object all the same.  An image without any gives 1 throughout: it has no object to
    compare with.
    """
    if not len(target.boxes):
        return boxes.new_ones(len(boxes))
    kept: Tensor = box_iou(boxes, target.boxes).amax(1) > iou
    return kept.to(boxes.dtype)


def average_count(items: Tensor) -> Tensor:
    """Number of items, averaged over processes, at least 1: dividing by it weights all items equally."""
    count = torch.tensor(float(len(items)), device=items.device)
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(count)
        count /= distributed.get_world_size()
    return count.clamp(min=1)
