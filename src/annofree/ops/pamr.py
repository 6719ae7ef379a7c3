"""Pixel-adaptive mask refinement (PAMR): soft masks drawn towards the edges of their image.

Araslanov and Roth, Single-Stage Semantic Segmentation from Image Labels, CVPR 2020.  C channels, K maps, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError

__all__ = ["apply_pamr", "refine_maps"]

DILATIONS = (1, 2, 4, 8, 12, 24)  # px, of the paper and of its users
_AROUND = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


@torch.no_grad()
def apply_pamr(image: Tensor, maps: Tensor, dilations: Sequence[int] = DILATIONS, iterations: int = 10) -> Tensor:
    """Replace each pixel of maps (K, H, W) by the mean of its neighbors that look like it, ``iterations`` times.

    ``image`` (C, H, W) is of the same size and of any scale: the affinity of a pixel to its 8 neighbors at each of the
    ``dilations`` px is a softmax over all of them of -|difference| / (0.1 deviation), the mean over channels, where the
    deviation is that of the pixels compared.  Edges are repeated.  The result is of the maps' type.  Neighbors are added up
    one after another, so that memory is a few times that of the maps and of 8 affinities a pixel and dilation.

    Raises InputError for other shapes or types, no or non-positive dilations and negative iterations.

    >>> edge = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
    >>> apply_pamr(edge, torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]), dilations=[1]).round(decimals=1)
    tensor([[[0.6000, 0.6000, 0.0000, 0.0000]]])
    """
    _check(image, maps, dilations, iterations)
    precise = torch.promote_types(maps.dtype, torch.float32)  # half precision has no 1e-8
    affinities = _affinities(image.to(maps.device, precise), dilations)
    refined = maps.to(precise)
    for _ in range(iterations):
        neighbors = _neighbors(refined, dilations)
        refined = torch.zeros_like(refined)
        for affinity, neighbor in zip(affinities, neighbors, strict=True):
            refined.addcmul_(affinity, neighbor)
    return refined.to(maps.dtype)


def refine_maps(
    pixels: npt.NDArray[np.uint8], maps: Tensor, dilations: Sequence[int] = DILATIONS, iterations: int = 10
) -> Tensor:
    """Refine maps (K, h, w) by an image (H, W, 3) that is first shrunk to (h, w), bilinearly with aligned corners.

    This is how the official users call PAMR: it runs at the size of the masks, which is not that of the image.

    >>> refine_maps(np.zeros((8, 6, 3), np.uint8), torch.ones(2, 4, 3)).shape
    torch.Size([2, 4, 3])
    """
    if maps.ndim != 3:
        raise InputError(f"expected maps (K, h, w), got {tuple(maps.shape)}")
    image = torch.tensor(pixels, dtype=torch.float32, device=maps.device).permute(2, 0, 1) / 255
    small = F.interpolate(image[None], size=maps.shape[1:], mode="bilinear", align_corners=True)[0]
    return apply_pamr(small, maps, dilations, iterations)


def _affinities(image: Tensor, dilations: Sequence[int]) -> Tensor:
    """How much each pixel is like each of its neighbors, (8 * dilations, H, W), 1 in sum over the neighbors."""
    count = 9 * len(dilations)
    # The deviation counts the pixel itself once a dilation; two passes, so that nothing is lost to a large mean.
    mean = (sum(_neighbors(image, dilations)) + len(dilations) * image) / count
    squares = len(dilations) * (image - mean).square()
    for neighbor in _neighbors(image, dilations):
        squares += (neighbor - mean).square()
    scale = 1 / (1e-8 + 0.1 * (squares / (count - 1)).sqrt())
    likeness = [-((neighbor - image).abs() * scale).mean(0) for neighbor in _neighbors(image, dilations)]
    return torch.stack(likeness).softmax(0)


def _neighbors(maps: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """Views of maps (K, H, W) moved to each neighbor, row by row around the pixel, one dilation after another."""
    height, width = maps.shape[1:]
    margin = max(dilations)
    padded = F.pad(maps[:, None], (margin, margin, margin, margin), mode="replicate")[:, 0]
    for d in dilations:
        for y, x in _AROUND:
            top, left = margin + d * y, margin + d * x
            yield padded[:, top : top + height, left : left + width]


def _check(image: Tensor, maps: Tensor, dilations: Sequence[int], iterations: int) -> None:
    if maps.ndim != 3 or image.ndim != 3 or image.shape[1:] != maps.shape[1:] or not image.numel():
        raise InputError(
            f"expected an image (C, H, W) and maps (K, H, W) of one size, got {tuple(image.shape)} and {tuple(maps.shape)}"
        )
    if not (maps.is_floating_point() and image.is_floating_point()):
        raise InputError(f"expected an image and maps of floats, got {image.dtype} and {maps.dtype}")
    if not dilations or min(dilations) < 1 or iterations < 0:
        raise InputError(
            f"expected dilations of at least 1 px and no fewer than 0 iterations, got {list(dilations)} and {iterations}"
        )
