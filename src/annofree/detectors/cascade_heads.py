"""The heads of Cascade Mask R-CNN: one box head per stage, and one mask head.

N boxes, C channels, K names, M cells a side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import clip_boxes_to_image

from annofree.detectors.config import DetectorConfig
from annofree.detectors.matching import MatchedProposals, average_count
from annofree.detectors.roi_align import read_masks
from annofree.detectors.types import DetectionTargets

__all__ = ["BoxStage", "MaskHead", "compute_mask_loss", "scale_gradient"]


class BoxStage(nn.Module):
    """Classifies boxes and regresses them class-agnostically: pooled (N, C, P, P) to logits (N, K + 1) and deltas (N, 4).

    ``weights`` are what deltas of x, y, width and height are multiplied with.
    """

    def __init__(self, config: DetectorConfig, weights: tuple[float, float, float, float]) -> None:
        super().__init__()
        self.head = TwoMLPHead(config.channels * config.box_pool**2, config.fc)
        self.score, self.move = nn.Linear(config.fc, len(config.names) + 1), nn.Linear(config.fc, 4)
        self.coder = BoxCoder(weights)
        for layer, deviation in ((self.score, 0.01), (self.move, 0.001)):  # small, so that boxes stay first
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)
        for layer in (self.head.fc6, self.head.fc7):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits, of nothing last, and deltas, in float32."""
        x = self.head(pooled)
        return self.score(x).float(), self.move(x).float()

    def encode(self, goals: Tensor, boxes: Tensor) -> Tensor:
        """The deltas (N, 4) that move boxes (N, 4) to their goals."""
        deltas: Tensor = self.coder.encode_single(goals, boxes)
        return deltas

    def apply_deltas(self, boxes: Tensor, deltas: Tensor, size: tuple[int, int]) -> Tensor:
        """Boxes (N, 4) after their deltas, within an image of ``size``, without a gradient."""
        to: Tensor = clip_boxes_to_image(self.coder.decode_single(deltas.detach(), boxes), size)
        return to


class MaskHead(nn.Module):
    """Predicts one mask per class: pooled (N, C, P, P) to logits (N, K, 2P, 2P)."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.convs = MaskRCNNHeads(config.channels, (config.channels,) * config.mask_convs, 1)
        self.predictor = MaskRCNNPredictor(config.channels, config.channels, len(config.names))
        nn.init.normal_(self.predictor.mask_fcn_logits.weight, std=0.001)

    def forward(self, pooled: Tensor) -> Tensor:
        """Return logits in float32."""
        logits: Tensor = self.predictor(self.convs(pooled)).float()
        return logits

    def select_class(self, pooled: Tensor, labels: Tensor) -> Tensor:
        """Select the mask logits (N, 2P, 2P) of one class each."""
        logits: Tensor = self(pooled)
        return logits[torch.arange(labels.shape[0], device=labels.device), labels]


def compute_mask_loss(
    logits: Tensor,
    taught: Sequence[MatchedProposals],
    targets: Sequence[DetectionTargets],
    weights: Tensor | None = None,
) -> Tensor:
    """Binary cross-entropy of mask logits (N, M, M) of boxes on objects, by ``weights`` (N), the mean over cells and boxes."""
    cells = logits.shape[-1]
    pairs = [(one, target) for one, target in zip(taught, targets, strict=True) if len(one.boxes)]
    truth = [read_masks(target.masks, one.boxes, one.matched, cells) for one, target in pairs]
    wanted = torch.cat(truth) if truth else torch.zeros_like(logits)
    of_each = None if weights is None else weights[:, None, None]
    apart = F.binary_cross_entropy_with_logits(logits, wanted, of_each, reduction="sum")
    return apart / (average_count(logits) * cells**2)


def scale_gradient(x: Tensor, scale: float) -> Tensor:
    """Scale the gradient of a tensor by ``scale``.

    >>> x = torch.ones(1, requires_grad=True)
    >>> scale_gradient(x, 0.25).backward()
    >>> x.grad.item()
    0.25
    """
    return x.detach() + (x - x.detach()) * scale if x.requires_grad else x
