"""Controls: a CLIP whose boundary features are replaced by a weaker baseline.

A method that separates objects by conv4_x has to beat the same method on plain colors and on an untrained network.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from annofree.features.clip import Clip
from annofree.features.clip_network import wrap_tower
from annofree.structures import FeatureMap, Image

__all__ = ["Control", "apply_control"]

Control = Literal["rgb", "random-weights"]


class _ColorBoundaries(Clip):
    """Boundary features are the mean RGB color of each cell, on the grid that conv4_x would have."""

    def __init__(self, clip: Clip) -> None:
        self.__dict__.update(clip.__dict__)

    @property
    def provenance(self) -> dict[str, Any]:
        """As the CLIP itself, and what its boundaries are."""
        return super().provenance | {"boundaries": "rgb"}

    @torch.inference_mode()
    def encode_boundaries(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Boundary features (C, h, w) of each image."""
        grids = [f.values.shape[-2:] for f in super().encode_boundaries(images)]
        pictures = [torch.tensor(i.pixels).permute(2, 0, 1)[None].float() / 255 for i in images]
        cells = [F.interpolate(p, size=g, mode="area")[0] for p, g in zip(pictures, grids, strict=True)]
        return [FeatureMap(c.to(self.device), i.size) for c, i in zip(cells, images, strict=True)]


class _UntrainedBoundaries(Clip):
    """Boundary features come from a second tower of the same shape with random weights."""

    def __init__(self, clip: Clip, seed: int) -> None:
        self.__dict__.update(clip.__dict__)
        self._other = copy.copy(clip)
        self._other._tower = wrap_tower(_reset(copy.deepcopy(clip._tower.visual), seed))

    @property
    def provenance(self) -> dict[str, Any]:
        """As the CLIP itself, and what its boundaries are."""
        return super().provenance | {"boundaries": "random-weights"}

    def encode_boundaries(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Boundary features (C, h, w) of each image."""
        return self._other.encode_boundaries(images)


def _reset(tower: nn.Module, seed: int) -> nn.Module:
    """Re-initialize all convolutions of a tower (He) and reset its normalization statistics."""
    generator = torch.Generator().manual_seed(seed)
    for module in tower.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            noise = torch.randn(module.weight.shape, generator=generator) * (2 / fan_in) ** 0.5
            module.weight.data.copy_(noise)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    return tower


def apply_control(clip: Any, control: Control, seed: int = 0) -> Clip:
    """Return a copy of a CLIP with other boundary features; ResNets only."""
    return _ColorBoundaries(clip) if control == "rgb" else _UntrainedBoundaries(clip, seed)
