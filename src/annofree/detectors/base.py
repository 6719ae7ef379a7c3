"""Base class of detectors: training losses and inference."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from annofree.detectors.config import DetectorConfig
from annofree.detectors.preprocessing import compute_working_size, resize_image
from annofree.detectors.types import DetectionTargets, RawDetections
from annofree.errors import InputError

__all__ = ["DetectorNetwork"]

_BATCH = 8  # images at once


class DetectorNetwork(nn.Module, ABC):
    """Base class of detector networks.

    Images are (3, H, W) float in 0 .. 1, RGB, of any sizes; the network normalizes and pads them itself.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def forward(self, pixels: Sequence[Tensor], targets: Sequence[DetectionTargets]) -> dict[str, Tensor]:
        """Name the losses, whose sum is minimized; for training, at the size the images come in."""

    @abstractmethod
    def find(self, images: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[RawDetections]:
        """Find things in images of one working size; answers are in px of images of ``sizes``."""

    @torch.inference_mode()
    def detect(self, pixels: Sequence[Tensor]) -> list[RawDetections]:
        """Find things, at the size of the configuration; answers are in px of the given images.

        Images of one working size are read together, so that what is found does not depend on the others, up to rounding.
        Raises InputError in training mode.
        """
        if self.training:
            raise InputError("expected a detector in evaluation mode to find things; call eval() first")
        sizes = [(p.shape[1], p.shape[2]) for p in pixels]
        read = [compute_working_size(size, self.config.side, self.config.longest) for size in sizes]
        found: dict[int, RawDetections] = {}
        for size in dict.fromkeys(read):
            same = [i for i, other in enumerate(read) if other == size]
            for start in range(0, len(same), _BATCH):
                some = same[start : start + _BATCH]
                images = [resize_image(pixels[i].to(self.device), size) for i in some]
                found.update(zip(some, self.find(images, [sizes[i] for i in some]), strict=True))
        return [found[i] for i in range(len(pixels))]

    @property
    def device(self) -> str:
        """The device of its weights."""
        return str(next(self.parameters()).device)
