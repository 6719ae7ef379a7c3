"""Cascade Mask R-CNN (Cai & Vasconcelos, CVPR 2018 and TPAMI 2019), configured as in the papers.

    proposals -> stage 1 (IoU 0.5) -> moved boxes -> stage 2 (0.6) -> moved boxes -> stage 3 (0.7) -> boxes
                 scores ------------- averaged with ------- scores ------------------- scores
    training: masks of stage 1's boxes on objects;  use: masks of the last boxes

Box regression is class-agnostic.  Each stage sends a third of its gradient into the pyramid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from annofree.detectors.cascade_heads import BoxStage, MaskHead, compute_mask_loss, scale_gradient
from annofree.detectors.config import DetectorConfig
from annofree.detectors.matching import (
    MatchedProposals,
    compute_box_loss,
    compute_class_loss,
    drop_weights,
    match_proposals,
    sample_proposals,
    weigh_proposals,
)
from annofree.detectors.region_detector import Located, RegionNetwork, select_best
from annofree.detectors.roi_align import read_boxes
from annofree.detectors.types import DetectionTargets, Levels, Sizes

__all__ = ["IOUS", "WEIGHTS", "Cascade"]

IOUS = (0.5, 0.6, 0.7)
"""From which overlap with an object a box is on it, stage by stage."""
WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
"""What deltas of x, y, width and height are multiplied with, stage by stage."""


class Cascade(RegionNetwork):
    """Three box heads, each trained on the boxes of the previous one, and a mask head."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        self.stages: Sequence[BoxStage] = nn.ModuleList([BoxStage(config, weights) for weights in WEIGHTS])  # type: ignore[assignment]
        self.mask = MaskHead(config)

    def compute_losses(
        self, levels: Levels, proposals: Sequence[Tensor], sizes: Sizes, targets: Sequence[DetectionTargets]
    ) -> dict[str, Tensor]:
        """Return the losses of classes and boxes of each stage, and of masks.

        Boxes are sampled once, from proposals and ground-truth boxes; later stages use the same ones, refined and
        re-matched (detectron2).
        """
        names, losses = len(self.config.names), dict[str, Tensor]()
        taught = first = [self._first(boxes, target) for boxes, target in zip(proposals, targets, strict=True)]
        for i, stage in enumerate(self.stages, 1):
            boxes, labels = [one.boxes for one in taught], torch.cat([one.labels for one in taught])
            logits, deltas = self._look(stage, levels, boxes)
            moved = _each(stage, boxes, deltas, sizes)
            weights = weigh_proposals(taught, targets, names)
            losses[f"loss_class_{i}"] = compute_class_loss(logits, labels, self._weights(moved, targets, weights))
            losses[f"loss_box_{i}"] = compute_box_loss(deltas, taught, names, stage.encode, weights)
            if i < len(IOUS):
                taught = [match_proposals(_solid(b), target, IOUS[i], names) for b, target in zip(moved, targets, strict=True)]
        return losses | {"loss_mask": self._mask_loss(levels, first, targets)}

    def predict(self, levels: Levels, proposals: Sequence[Tensor], sizes: Sizes) -> list[Located]:
        """Refine proposals three times; returns the last boxes, and scores averaged over stages."""
        boxes, scores = list(proposals), list[Tensor]()
        counts = [some.shape[0] for some in boxes]
        for stage in self.stages:
            logits, deltas = self._look(stage, levels, boxes)
            boxes = _each(stage, boxes, deltas, sizes)
            scores.append(logits.softmax(1))
        mean = torch.split(torch.stack(scores).mean(0)[:, :-1], counts)
        kept = [select_best(b, s, self.config) for b, s in zip(boxes, mean, strict=True)]
        masks = self._masks(levels, [b for b, _, _ in kept], torch.cat([labels for _, _, labels in kept]))
        parts = torch.split(masks.sigmoid(), [b.shape[0] for b, _, _ in kept])
        return [Located(b, s, labels, m) for (b, s, labels), m in zip(kept, parts, strict=True)]

    def _first(self, boxes: Tensor, target: DetectionTargets) -> MatchedProposals:
        names, how = len(self.config.names), self.config
        taught = match_proposals(torch.cat([boxes, target.boxes.to(boxes)]), target, IOUS[0], names)
        return sample_proposals(taught, names, how.roi_batch, how.roi_positive)

    def _look(self, stage: BoxStage, levels: Levels, boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        how = self.config
        pooled = read_boxes(levels, boxes, how.box_pool, how.roi_scale, how.sampling)
        logits, deltas = stage(scale_gradient(pooled, 1 / len(self.stages)))
        return logits, deltas

    def _masks(self, levels: Levels, boxes: Sequence[Tensor], labels: Tensor) -> Tensor:
        how = self.config
        return self.mask.select_class(read_boxes(levels, boxes, how.mask_pool, how.roi_scale, how.sampling), labels)

    def _mask_loss(self, levels: Levels, taught: Sequence[MatchedProposals], targets: Sequence[DetectionTargets]) -> Tensor:
        on = [one.select(one.labels < len(self.config.names)) for one in taught]
        logits = self._masks(levels, [one.boxes for one in on], torch.cat([one.labels for one in on]))
        return compute_mask_loss(logits, on, targets, weigh_proposals(on, targets, len(self.config.names)))

    def _weights(self, moved: Sequence[Tensor], targets: Sequence[DetectionTargets], own: Tensor | None) -> Tensor | None:
        """What the class losses of boxes are multiplied by: their ``own`` weights, and 0 where DropLoss drops them."""
        iou = self.config.drop_loss
        if not iou:
            return own
        kept = torch.cat([drop_weights(boxes, target, iou) for boxes, target in zip(moved, targets, strict=True)])
        return kept if own is None else kept * own


def _each(stage: BoxStage, boxes: Sequence[Tensor], deltas: Tensor, sizes: Sizes) -> list[Tensor]:
    """The boxes of each image after their deltas, which are those of all images."""
    parts = torch.split(deltas, [some.shape[0] for some in boxes])
    return [stage.apply_deltas(b, d, size) for b, d, size in zip(boxes, parts, sizes, strict=True)]


def _solid(boxes: Tensor) -> Tensor:
    """Boxes with an area: for others the deltas are not finite."""
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
