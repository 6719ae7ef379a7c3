"""Training targets and outputs of a detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

__all__ = ["DetectionTargets", "Levels", "RawDetections", "Sizes"]

Levels = Mapping[str, Tensor]
"""The maps (B, C, h, w) of a pyramid, by the names of its levels."""

Sizes = Sequence[tuple[int, int]]
"""The size (H, W) of each image of a batch."""


class DetectionTargets(NamedTuple):
    """What there is to find in an image of (H, W), which may be nothing.

    ``boxes`` (N, 4) float x0 y0 x1 y1 px, ``labels`` (N) int64 from 0 into the names, ``masks`` (N, H, W) bool, and
    ``weights`` (N) float, what the losses of each are multiplied by; none are 1 each.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    weights: Tensor | None = None

    def to(self, device: str) -> DetectionTargets:
        """Move to a device."""
        boxes, labels, masks = (part.to(device, non_blocking=True) for part in self[:3])
        return DetectionTargets(boxes, labels, masks, None if self.weights is None else self.weights.to(device))


class RawDetections(NamedTuple):
    """What a detector found in an image of (H, W), strongest first.

    ``boxes`` (N, 4) float x0 y0 x1 y1 px, ``labels`` (N) int64 into the names, ``scores`` (N) in 0 .. 1, ``masks`` (N, H, W)
    bool.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    masks: Tensor
