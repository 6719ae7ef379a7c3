"""Two-stage detectors: the common part of Cascade R-CNN and Mask R-CNN.

images -> normalized, padded -> ResNet, FPN -> proposals -> boxes, names, scores -> small masks -> masks of the image
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from annofree.detectors.backbones import Backbone, check_norm
from annofree.detectors.base import DetectorNetwork
from annofree.detectors.config import DetectorConfig
from annofree.detectors.paste_masks import paste
from annofree.detectors.preprocessing import normalize_image, pad_batch
from annofree.detectors.proposals import Proposals
from annofree.detectors.types import DetectionTargets, Levels, RawDetections, Sizes
from annofree.errors import InputError

__all__ = ["Located", "RegionNetwork", "check_targets", "select_best"]

_LEAST = 1e-2  # px, of a side of a box


class Located(NamedTuple):
    """What was found in an image as the network reads it, strongest first.

    ``boxes`` (N, 4) px of that image, ``scores`` (N), ``labels`` (N) int64, ``masks`` (N, M, M) probabilities within the box.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor


class RegionNetwork(DetectorNetwork):
    """A two-stage detector; the heads are defined by subclasses."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        self.backbone = Backbone(config)
        self.rpn = Proposals(config)

    @abstractmethod
    def compute_losses(
        self, levels: Levels, proposals: Sequence[Tensor], sizes: Sizes, targets: Sequence[DetectionTargets]
    ) -> dict[str, Tensor]:
        """Return the losses of the heads."""

    @abstractmethod
    def predict(self, levels: Levels, proposals: Sequence[Tensor], sizes: Sizes) -> list[Located]:
        """Look into the proposals of each image."""

    def forward(self, pixels: Sequence[Tensor], targets: Sequence[DetectionTargets]) -> dict[str, Tensor]:
        """Name the losses of images (3, H, W) in 0 .. 1 with what there is to find; see ``DetectorNetwork``.

        Raises InputError outside of training, and for invalid targets.
        """
        if not self.training:
            raise InputError("expected a detector in training mode to give losses; call train() first, or detect()")
        check_norm(self.config.norm, self.device)
        check_targets(pixels, targets, len(self.config.names))
        inputs, sizes = self._read(pixels)
        levels = self.backbone(inputs)
        proposals, losses = self.rpn.propose(inputs, sizes, levels, targets)
        return {**losses, **self.compute_losses(levels, proposals, sizes, targets)}

    def find(self, images: Sequence[Tensor], sizes: Sizes) -> list[RawDetections]:
        """Find things in images of one working size; see ``DetectorNetwork``."""
        inputs, shapes = self._read(images)
        located = zip(self.locate_all(inputs, shapes), shapes, sizes, strict=True)
        return [_found(one, read, size) for one, read, size in located]

    def locate(self, image: Tensor, size: tuple[int, int] | None = None) -> Located:
        """Find things in one image (3, H, W), normalized, its sides multiples of 32; tensor operations alone.

        ``size`` (H', W') is the part that is no padding, from the top left corner.
        """
        return self.locate_all(image[None], [size or (image.shape[1], image.shape[2])])[0]

    def locate_all(self, inputs: Tensor, sizes: Sizes) -> list[Located]:
        """Detect in a batch (B, 3, H, W), see ``locate``."""
        levels = self.backbone(inputs)
        proposals, _ = self.rpn.propose(inputs, sizes, levels)
        return self.predict(levels, proposals, sizes)

    def _read(self, pixels: Sequence[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        plain = [normalize_image(p.to(self.device), self.config.mean, self.config.std) for p in pixels]
        return pad_batch(plain), [(p.shape[1], p.shape[2]) for p in plain]


def select_best(boxes: Tensor, scores: Tensor, config: DetectorConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Select the best of boxes (N, 4) with scores (N, K) per class: boxes, scores and labels, highest score first.

    Applies the score floor and NMS per class, and drops boxes without area.
    """
    labels = torch.arange(scores.shape[1], device=scores.device).expand_as(scores).flatten()
    boxes, scores = boxes.repeat_interleave(scores.shape[1], 0), scores.flatten()
    solid = ((boxes[:, 2:] - boxes[:, :2]) >= _LEAST).all(1)
    kept = torch.where((scores > config.score_floor) & solid)[0]
    boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
    kept = batched_nms(boxes, scores, labels, config.nms)[: config.detections]
    return boxes[kept], scores[kept], labels[kept]


def check_targets(pixels: Sequence[Tensor], targets: Sequence[DetectionTargets], names: int) -> None:
    """Raise InputError unless each image has a target of its size, with labels of the names and boxes with area."""
    if not pixels or len(pixels) != len(targets):
        raise InputError(f"expected images with a target each, got {len(pixels)} and {len(targets)}")
    for image, target in zip(pixels, targets, strict=True):
        count, size = len(target.boxes), tuple(image.shape[1:])
        if target.boxes.shape != (count, 4) or len(target.labels) != count or target.masks.shape != (count, *size):
            raise InputError(
                f"expected {count} boxes (N, 4), labels (N) and masks (N, {', '.join(map(str, size))}), got "
                f"{tuple(target.boxes.shape)}, {tuple(target.labels.shape)} and {tuple(target.masks.shape)}"
            )
        if count and not bool(((target.labels >= 0) & (target.labels < names)).all()):
            raise InputError(f"expected labels from 0 to {names - 1}, got {sorted(set(target.labels.tolist()))}")
        if count and not bool((target.boxes[:, 2:] > target.boxes[:, :2]).all()):
            raise InputError("expected boxes x0 y0 x1 y1 with an area, got one without; drop objects whose mask is empty")


def _found(located: Located, read: tuple[int, int], size: tuple[int, int]) -> RawDetections:
    """From the image as it was read to the image itself."""
    scale = located.boxes.new_tensor([size[1] / read[1], size[0] / read[0]] * 2)
    boxes = located.boxes * scale
    return RawDetections(boxes, located.labels, located.scores, paste(located.masks, boxes, size))
