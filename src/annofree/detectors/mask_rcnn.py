"""Mask R-CNN (He et al., ICCV 2017): torchvision's heads on the same backbone and proposals as the cascade.

Box regression is per class; RoIAlign and losses are torchvision's.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from annofree.detectors.backbones import LEVELS, STRIDES
from annofree.detectors.config import DetectorConfig
from annofree.detectors.region_detector import Located, RegionNetwork
from annofree.detectors.types import DetectionTargets, Levels, Sizes

__all__ = ["MaskRcnn", "build_roi_heads"]

_POINTS = 2  # a bin and axis, torchvision's


class MaskRcnn(RegionNetwork):
    """One box head and a mask head; ``roi_heads`` has torchvision's names."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        self.roi_heads = build_roi_heads(config)

    def compute_losses(
        self, levels: Levels, proposals: Sequence[Tensor], sizes: Sizes, targets: Sequence[DetectionTargets]
    ) -> dict[str, Tensor]:
        """Return the losses of classes, boxes and masks, by torchvision's names."""
        # torchvision's label 0 is background
        wanted = [{"boxes": t.boxes.float(), "labels": t.labels + 1, "masks": t.masks} for t in targets]
        losses: dict[str, Tensor] = self.roi_heads(dict(levels), list(proposals), list(sizes), wanted)[1]
        return losses

    def predict(self, levels: Levels, proposals: Sequence[Tensor], sizes: Sizes) -> list[Located]:
        """Predict from the proposals."""
        heads, how = self.roi_heads, self.config
        heads.score_thresh, heads.nms_thresh, heads.detections_per_img = how.score_floor, how.nms, how.detections
        found = heads(dict(levels), list(proposals), list(sizes))[0]
        return [Located(one["boxes"], one["scores"], one["labels"] - 1, one["masks"][:, 0]) for one in found]


class _Predictor(FastRCNNPredictor):  # type: ignore[misc]
    """Computes outputs in float32: bfloat16 is too coarse for boxes."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and deltas."""
        logits, deltas = super().forward(x)
        return logits.float(), deltas.float()


class _MaskPredictor(MaskRCNNPredictor):  # type: ignore[misc]
    """Computes outputs in float32, too."""

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = super().forward(x).float()
        return logits


def build_roi_heads(config: DetectorConfig) -> RoIHeads:
    """Build torchvision's heads for a configuration."""
    kinds, width = len(config.names) + 1, config.channels
    return RoIHeads(
        _pool(config, config.box_pool),
        TwoMLPHead(width * config.box_pool**2, config.fc),
        _Predictor(config.fc, kinds),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=config.roi_batch,
        positive_fraction=config.roi_positive,
        bbox_reg_weights=None,
        score_thresh=config.score_floor,
        nms_thresh=config.nms,
        detections_per_img=config.detections,
        mask_roi_pool=_pool(config, config.mask_pool),
        mask_head=MaskRCNNHeads(width, (width,) * config.mask_convs, 1),
        mask_predictor=_MaskPredictor(width, width, kinds),
    )


def _pool(config: DetectorConfig, cells: int) -> MultiScaleRoIAlign:
    pool = MultiScaleRoIAlign(list(LEVELS), cells, config.sampling or _POINTS)
    # said here, for torchvision guesses them from the first images, and guesses wrong for small ones within much padding
    pool.scales, pool.map_levels = [1 / stride for stride in STRIDES], LevelMapper(2, 5, config.roi_scale)
    return pool
