"""CLIP's image towers as MaskCLIP's released code reads them: what it put in place of the trained tower's own.

    image -> short side 512, OpenCV's bilinear -> ImageNet's statistics -> zeros to whole patches -> GELU, eps 1e-6

B images, H W pixels.  OpenAI's ViTs were trained with QuickGELU, an eps of 1e-5, other statistics and bicubic pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.nn import functional as F

from annofree.errors import InputError
from annofree.features.towers.resnet import ResNetTower
from annofree.features.towers.vit import VitTower
from annofree.ops.fixed_bilinear import resize_levels
from annofree.structures import Image

__all__ = ["RELEASED_SIDE", "fit_released", "normalize_released", "prepare_released", "read_as_released"]

RELEASED_SIDE = 512
"""Px of the short side, unless the long one would be above 2048 then."""

_LONGEST = 2048
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_EPS = 1e-6


def fit_released(size: tuple[int, int], short: int = RELEASED_SIDE, longest: int = _LONGEST) -> tuple[int, int]:
    """The (h, w) that an image of ``size`` (H, W) is brought to, its aspect kept up to rounding.

    >>> fit_released((480, 640)), fit_released((100, 1000)), fit_released((480, 640), 448)
    ((512, 683), (205, 2048), (448, 597))
    """
    scale = min(short / min(size), longest / max(size))
    height, width = (max(1, int(n * scale + 0.5)) for n in size)
    return height, width


def prepare_released(images: Sequence[Image], size: tuple[int, int], stride: int, device: torch.device) -> Tensor:
    """Images at ``size`` (h, w), normalized, then with zeros below and on the right to whole patches, (B, 3, ., .)."""
    x = torch.stack([normalize_released(image, size, device) for image in images])
    return F.pad(x, (0, -size[1] % stride, 0, -size[0] % stride))


def normalize_released(image: Image, size: tuple[int, int], device: torch.device | str) -> Tensor:
    """An image at ``size`` (h, w) by OpenCV's bilinear, with ImageNet's statistics, (3, h, w)."""
    x = torch.tensor(resize_levels(image.pixels, size)).to(device).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (_MEAN, _STD))
    return (x - mean) / std


def read_as_released(tower: Any) -> Any:
    """Return a ViT's tower with GELU and an eps of 1e-6, on the same weights; a ResNet's has neither, and stays.

    Raises InputError for a tower that is not CLIP's own.
    """
    if isinstance(tower, ResNetTower):
        return tower
    if not isinstance(tower, VitTower):
        raise InputError("MaskCLIP was released for CLIP's own ResNets and ViTs; read this one by another variant")
    return VitTower(_exchange(tower.visual), tower.positions)


def _exchange(module: nn.Module) -> Any:
    """A copy of a module and those in it, with the released activation and eps, that shares all weights."""
    if isinstance(module, QuickGELU):
        return nn.GELU()
    twin = copy.copy(module)
    twin._modules = {name: None if part is None else _exchange(part) for name, part in module._modules.items()}
    if isinstance(twin, nn.LayerNorm):
        twin.eps = _EPS
    return twin
