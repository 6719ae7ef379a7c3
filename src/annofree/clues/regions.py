"""CLIP features of class-agnostic regions: pooled from dense features, or of what CLIP sees of each by itself.

N regions, D embedding, h w cells, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.ops.boxes import compute_tight_boxes
from annofree.ops.rle import RLE, compute_rle_boxes, decode_rles
from annofree.protocols import VisionLanguage
from annofree.structures import BoolArray, FeatureMap, Image

__all__ = ["Look", "Reading", "average_readings", "draw_cut_outs", "encode_cut_outs", "encode_looks", "pool_features"]

Look = Literal["box", "masked", "black", "pooled"]
"""What CLIP sees of a mask: the crop of its box, that with all outside of the mask gray, or black, or its box in one pass."""

Reading = Literal["cut-out", "pooled"]
"""What is averaged where CLIP sees a mask in several ways: its cut-out (``masked`` above), and the cells under it."""

_GRAY = 0.5  # of the blanked outside, near the mean of images
_MARGIN = 1.1  # side of a cut-out over the longer side of the region's box
_AT_ONCE = 64
_OUTSIDE: dict[Look, float] = {"masked": _GRAY, "black": 0.0}


def pool_features(tokens: FeatureMap, masks: BoolArray) -> Tensor:
    """The unit mean (N, D) of the cells of ``tokens`` under each mask (N, H, W), each cell weighted by its covered fraction.

    It costs one matrix product per call.  A mask that covers no cell gets zeros.

    >>> tokens = FeatureMap(torch.eye(2).view(2, 1, 2), (2, 4))
    >>> left = np.zeros((1, 2, 4), bool)
    >>> left[:, :, :2] = True
    >>> pool_features(tokens, left).tolist()
    [[1.0, 0.0]]
    """
    values, grid = tokens.values, tokens.values.shape[-2:]
    covered = torch.from_numpy(masks).to(values.device)
    if tokens.window is not None:
        height, width = tokens.window
        covered = F.pad(covered, (0, width - covered.shape[-1], 0, height - covered.shape[-2]))
    parts = [
        F.interpolate(some[:, None].to(values), size=grid, mode="area")[:, 0].flatten(1)
        for some in torch.split(covered, _AT_ONCE)
    ]
    share = torch.cat(parts) if parts else values.new_zeros(0, grid.numel())
    return F.normalize(share @ values.flatten(1).T, dim=1)


def encode_looks(clip: VisionLanguage, image: Image, rles: Sequence[RLE], look: Look) -> Tensor:
    """One unit feature (N, D) per mask, by what CLIP is to see of it; of cut-outs, a few masks are decoded at a time."""
    if not rles:
        return torch.zeros(0, clip.dimension)
    if look not in _OUTSIDE:
        return clip.encode_crops(image, compute_rle_boxes(rles), pooled=look == "pooled").cpu()
    groups = (decode_rles(rles[start : start + _AT_ONCE], image.size) for start in range(0, len(rles), _AT_ONCE))
    return torch.cat([encode_cut_outs(clip, image, masks, _OUTSIDE[look]) for masks in groups])


def average_readings(
    clip: VisionLanguage, image: Image, tokens: FeatureMap, masks: BoolArray, readings: Sequence[Reading]
) -> Tensor:
    """The mean over ``readings`` of what CLIP sees of each mask (N, H, W): its cut-out, the ``tokens`` under it, (N, D)."""
    read = {
        "cut-out": lambda: encode_cut_outs(clip, image, masks),
        "pooled": lambda: pool_features(tokens, masks).cpu(),
    }
    return torch.stack([read[name]() for name in readings]).mean(0)


def encode_cut_outs(clip: VisionLanguage, image: Image, masks: BoolArray, outside: float = _GRAY) -> Tensor:
    """One unit feature (N, D) per masked crop: the square around the mask, with the ``outside`` of one level of 0 .. 1."""
    groups = (masks[start : start + _AT_ONCE] for start in range(0, len(masks), _AT_ONCE))
    seen = [clip.encode_squares(torch.stack(list(draw_cut_outs(image, some, clip.side, outside)))).cpu() for some in groups]
    return torch.cat([torch.zeros(0, clip.dimension), *seen])


def draw_cut_outs(image: Image, masks: BoolArray, side: int, outside: float = _GRAY) -> Iterator[Tensor]:
    """Yield the square around each mask (H, W), a tenth wider than its box, one level outside of it, (3, side, side)."""
    pixels = torch.from_numpy(image.pixels).permute(2, 0, 1)
    for mask, box in zip(masks, compute_tight_boxes(masks), strict=True):
        square = _square(pixels, torch.from_numpy(mask), box, outside)
        yield F.interpolate(square[None], size=(side, side), mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)


def _square(pixels: Tensor, mask: Tensor, box: npt.NDArray[np.float32], outside: float) -> Tensor:
    x0, y0, x1, y1 = (float(v) for v in box)
    side = max(4, math.ceil(max(x1 - x0, y1 - y0) * _MARGIN))
    left, top = math.floor((x0 + x1 - side) / 2), math.floor((y0 + y1 - side) / 2)
    rows, columns = (slice(max(0, at), min(length, at + side)) for at, length in zip((top, left), mask.shape, strict=True))
    seen = torch.where(mask[rows, columns], pixels[:, rows, columns].float() / 255, outside)
    canvas = torch.full((3, side, side), outside)
    canvas[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = seen
    return canvas
