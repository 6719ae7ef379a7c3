"""The region proposal network: torchvision's, made safe for half precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from annofree.detectors.config import DetectorConfig
from annofree.detectors.matching import average_count
from annofree.detectors.types import DetectionTargets

__all__ = ["Proposals"]


class _Head(RPNHead):  # type: ignore[misc]
    """Computes outputs in float32: bfloat16 is too coarse for boxes."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return objectness and deltas of each level."""
        objectness, deltas = super().forward(x)
        return [o.float() for o in objectness], [d.float() for d in deltas]


class Proposals(RegionProposalNetwork):  # type: ignore[misc]
    """Proposes boxes (Ren et al., NeurIPS 2015): anchors above IoU 0.7, or the best of an object, learn to be one.

    Losses are divided by the number of anchors drawn, the mean over processes; boxes learn by L1 (detectron2).
    """

    def __init__(self, config: DetectorConfig) -> None:
        anchors = AnchorGenerator(tuple((side,) for side in config.anchors), (config.ratios,) * len(config.anchors))
        before, after = ({"training": n[0], "testing": n[1]} for n in (config.rpn_before, config.rpn_after))
        super().__init__(
            anchors, _Head(config.channels, len(config.ratios)), 0.7, 0.3, config.rpn_batch, 0.5, before, after, config.rpn_nms
        )

    def propose(
        self,
        pixels: Tensor,
        sizes: Sequence[tuple[int, int]],
        levels: Mapping[str, Tensor],
        targets: Sequence[DetectionTargets] | None = None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Propose boxes (N, 4) in each image of a batch (B, 3, H, W), which are of ``sizes``; with targets, losses."""
        wanted = None if targets is None else [{"boxes": t.boxes.float()} for t in targets]
        boxes, losses = self(ImageList(pixels, list(sizes)), dict(levels), wanted)
        return boxes, losses

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the losses of objectness and boxes, over anchors that are drawn."""
        on, off = (torch.where(torch.cat(drawn))[0] for drawn in self.fg_bg_sampler(labels))
        both, goals = torch.cat([on, off]), torch.cat(regression_targets)
        count = average_count(both)
        truth = torch.cat(labels)[both]
        seen = F.binary_cross_entropy_with_logits(objectness.flatten()[both], truth, reduction="sum")
        return seen / count, (pred_bbox_deltas[on] - goals[on]).abs().sum() / count
