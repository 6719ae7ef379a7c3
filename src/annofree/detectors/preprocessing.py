"""Images as a detector reads them: at its size, normalized, side by side in one batch with zeros around."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError

__all__ = ["STRIDE", "compute_working_size", "normalize_image", "pad_batch", "resize_image"]

STRIDE = 32
"""Sides of a batch are multiples of this, in px: that of the coarsest level that features are taken from."""


def compute_working_size(size: tuple[int, int], side: int, longest: int) -> tuple[int, int]:
    """At which (H, W) an image of ``size`` is read: short side ``side`` px, long side at most ``longest``, none under 1.

    >>> compute_working_size((480, 640), 800, 1333), compute_working_size((100, 400), 800, 1333)
    ((800, 1067), (333, 1333))
    """
    scale = min(side / min(size), longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize_image(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """An image (3, H, W) at another size, bilinear with antialiasing; as it is at its own."""
    if tuple(pixels.shape[1:]) == size:
        return pixels
    return F.interpolate(pixels[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]


def normalize_image(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalize (3, H, W) in 0 .. 1 by mean and standard deviation; raises InputError for other inputs."""
    if pixels.ndim != 3 or pixels.shape[0] != 3 or not pixels.is_floating_point() or not pixels.numel():
        raise InputError(f"expected an image (3, H, W) of floats in 0 .. 1, got {pixels.dtype} {tuple(pixels.shape)}")
    return (pixels - pixels.new_tensor(mean).view(3, 1, 1)) / pixels.new_tensor(std).view(3, 1, 1)


def pad_batch(images: Sequence[Tensor], stride: int = STRIDE) -> Tensor:
    """Put normalized images (3, H, W) into one (B, 3, H', W'), each in the top left corner, zeros elsewhere.

    >>> pad_batch([torch.ones(3, 30, 40), torch.ones(3, 40, 20)]).shape
    torch.Size([2, 3, 64, 64])
    """
    height, width = (-(-max(p.shape[i] for p in images) // stride) * stride for i in (1, 2))
    return torch.stack([F.pad(p, (0, width - p.shape[2], 0, height - p.shape[1])) for p in images])
