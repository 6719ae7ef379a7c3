"""Images to normalized tensors, batched by size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.structures import Image

__all__ = ["Resample", "crop_image", "map_by_size", "preprocess_image", "resize_pixels"]

T = TypeVar("T")

Resample = Literal["bicubic", "bilinear"]
"""How pixels are interpolated."""


def preprocess_image(image: Image, size: tuple[int, int], mean: Tensor, std: Tensor, resample: Resample = "bicubic") -> Tensor:
    """Resize an image to ``size`` (H, W) with antialiasing and normalize it; (1, 3, *size) on mean's device."""
    x = torch.tensor(image.pixels).to(mean.device).permute(2, 0, 1)[None].float() / 255
    return (resize_pixels(x, size, resample) - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def crop_image(image: Image, box: npt.NDArray[np.floating[Any]]) -> Image:
    """What is in a box (4) px, widened to whole pixels, at least one of them.

    >>> crop_image(Image(np.zeros((4, 6, 3), np.uint8)), np.array([0.5, -2, 2.5, 1])).size
    (1, 3)
    """
    height, width = image.size
    x0, y0 = (int(np.clip(np.floor(v), 0, n - 1)) for v, n in zip(box[:2], (width, height), strict=True))
    x1, y1 = (int(np.clip(np.ceil(v), low + 1, n)) for v, low, n in zip(box[2:], (x0, y0), (width, height), strict=True))
    return Image(image.pixels[y0:y1, x0:x1], image.id)


def resize_pixels(x: Tensor, size: tuple[int, int], resample: Resample = "bicubic") -> Tensor:
    """Resize pixels (B, 3, H, W) in 0 .. 1 to (B, 3, *size), with antialiasing.

    >>> resize_pixels(torch.full((1, 3, 4, 4), 0.5), (2, 3), "bilinear").unique().tolist()
    [0.5]
    """
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode=resample, antialias=True, align_corners=False).clamp(0, 1)


def map_by_size(
    images: Sequence[Image],
    size_of: Callable[[Image], tuple[int, int]],
    see: Callable[[list[Image], tuple[int, int]], Sequence[T]],
) -> list[T]:
    """Call ``see`` once for each target size on all images of it, and give the answers in the order of the images."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(size_of(image), []).append(index)
    answers: dict[int, T] = {}
    for size, members in groups.items():
        answers.update(zip(members, see([images[i] for i in members], size), strict=True))
    return [answers[i] for i in range(len(images))]
