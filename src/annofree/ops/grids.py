"""From pixels to cells and back.

A grid of h x w cells evenly covers an image of H x W pixels: cell i spans rows i H / h to (i + 1) H / h.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Sampling", "fit_size", "resize_maps", "resize_nearest", "shift_images", "stitch_maps"]

Sampling = Literal["exact", "float32"]
"""Which of n px the i-th of m takes: floor(i n / m) of whole numbers, or that of float32 products, as in torch's ``nearest``.

The ratio n / m is rounded there first, so that a product that is a whole number may come out below it, and the px before is
taken: where 2 px become 82, px 0 once more for the 42nd.
"""


def fit_size(size: tuple[int, int], short: int, stride: int, longest: float = 4.0) -> tuple[int, int]:
    """Give the (H, W) that brings the short side of ``size`` to ``short`` px, in multiples of ``stride``.

    The aspect is kept up to rounding, except that no side grows beyond ``longest`` times ``short``.

    >>> fit_size((480, 640), 256, 32), fit_size((3, 20000), 256, 32)
    ((256, 352), (256, 1024))
    """
    scale = short / min(size)
    height, width = (max(stride, round(min(n * scale, short * longest) / stride) * stride) for n in size)
    return height, width


def resize_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps (K, h, w) to (K, *size) bilinearly by cell centers."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


def resize_nearest(maps: Tensor, size: tuple[int, int], sampling: Sampling = "exact") -> Tensor:
    """Sample maps (..., H, W) at rows floor(i H / h) and columns floor(j W / w), as plain nearest resizing does.

    >>> resize_nearest(torch.arange(5)[None], (1, 2)).tolist()
    [[0, 2]]
    """
    rows, columns = (_sample(full, n, sampling).to(maps.device) for n, full in zip(size, maps.shape[-2:], strict=True))
    return maps[..., rows[:, None], columns]


def _sample(full: int, count: int, sampling: Sampling) -> Tensor:
    """Which of ``full`` px each of ``count`` takes, (count)."""
    places = torch.arange(count)
    if sampling == "exact":
        return places * full // count
    ratio = torch.tensor(full, dtype=torch.float32) / count
    return (places.float() * ratio).floor().long().clamp(max=full - 1)


def shift_images(images: Tensor, stride: int, factor: int) -> Tensor:
    """Stack ``factor`` ** 2 copies (factor ** 2 * B, C, H, W) of images, moved by even fractions of a stride.

    The moves are centered, so that the cells of all copies, stitched, evenly cover the image.  Edges are repeated.
    """
    if factor == 1:
        return images
    half = stride // 2
    padded = F.pad(images, (half, half, half, half), mode="replicate")
    height, width = images.shape[-2:]
    starts = [half + round((k - (factor - 1) / 2) * stride / factor) for k in range(factor)]
    return torch.cat([padded[..., y : y + height, x : x + width] for y in starts for x in starts])


def stitch_maps(maps: Tensor, factor: int) -> Tensor:
    """Interleave the maps (factor ** 2 * B, D, h, w) of moved copies into (B, D, factor * h, factor * w).

    >>> stitch_maps(torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1, 1), 2)[0, 0].tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    _, dimension, height, width = maps.shape
    grid = maps.view(factor, factor, -1, dimension, height, width).permute(2, 3, 4, 0, 5, 1)
    return grid.reshape(-1, dimension, factor * height, factor * width)
