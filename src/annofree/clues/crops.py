"""Squares all over an image, coarse and fine, and the map that their likeness to words makes (CLIP-DIY, section 3.1).

At scale s a window is 1 / 2 ** s of the canvas, and scale 0 is the whole image.  K classes, D embedding, kh kw windows of
a scale, h w the canvas, H W the output size of a map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from annofree.errors import InputError

__all__ = ["Layout", "Placement", "Tiling", "average_tiles", "cut", "interpolate_weights", "lay_tilings", "resize_bicubic"]

Layout = Literal["sliding", "partition"]
"""Windows that overlap by half, or that meet and do not overlap."""

Placement = Literal["tiled", "centres"]
"""Where a window's value lies: on an even grid, as if windows tiled the canvas, or at the window's own center."""

Span = tuple[int, int]

_BITS = 22  # of Pillow's fixed point


@dataclass(frozen=True)
class Tiling:
    """The windows of one scale: each of ``rows`` with each of ``columns``, first and end px on a canvas of ``size`` (h, w)."""

    size: tuple[int, int]
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]

    @property
    def grid(self) -> tuple[int, int]:
        """(kh, kw)."""
        return len(self.rows), len(self.columns)

    @property
    def boxes(self) -> list[tuple[int, int, int, int]]:
        """x0 y0 x1 y1 of each window, row by row."""
        return [(x0, y0, x1, y1) for y0, y1 in self.rows for x0, x1 in self.columns]


def lay_tilings(size: tuple[int, int], scales: Sequence[int], layout: Layout) -> list[Tiling]:
    """Compute one tiling per scale over a canvas of ``size`` (h, w).

    A window has 1 / 2 ** s of the canvas's short side.  ``sliding``: half a window apart or a little closer, so that the last
    ends where the canvas does (on a square of a power of two just the released code's unfold).  ``partition``: ceil(h / P) x
    ceil(w / P) even parts; the paper does not specify the remainder.
    Raises InputError for a scale under 0 or with windows under a pixel.

    >>> sliding, partition = lay_tilings((256, 256), (0, 1, 2), "sliding"), lay_tilings((448, 597), (0, 1), "partition")
    >>> [t.grid for t in sliding], [t.grid for t in partition]
    ([(1, 1), (3, 3), (7, 7)], [(1, 1), (2, 3)])
    """
    if not scales or min(scales) < 0 or min(size) >> max(scales) < 1:
        raise InputError(f"expected scales from 0 on, with windows of a pixel or more on a canvas of {size}, got {[*scales]}")
    return [_tiling(size, scale, layout) for scale in scales]


def _tiling(size: tuple[int, int], scale: int, layout: Layout) -> Tiling:
    if scale == 0:
        return Tiling(size, ((0, size[0]),), ((0, size[1]),))
    window = min(size) >> scale
    spans = _sliding if layout == "sliding" else _parts
    return Tiling(size, spans(size[0], window), spans(size[1], window))


def _sliding(length: int, window: int) -> tuple[Span, ...]:
    steps = math.ceil((length - window) / max(1, window // 2))
    starts = [round(i * (length - window) / max(1, steps)) for i in range(steps + 1)]
    return tuple((start, start + window) for start in starts)


def _parts(length: int, window: int) -> tuple[Span, ...]:
    count = math.ceil(length / window)
    ends = [round(i * length / count) for i in range(count + 1)]
    return tuple(pairwise(ends))


def cut(canvas: Tensor, tiling: Tiling, side: int) -> Tensor:
    """Crop the windows from a canvas (3, h, w) in 0 .. 1 and resize each to ``side`` px, (N, 3, side, side).

    By Pillow's bicubic, to the gray level, for many crops at a time and on the device of the canvas.
    """
    boxes = tiling.boxes
    out = canvas.new_empty(len(boxes), len(canvas), side, side)
    shapes = [(y1 - y0, x1 - x0) for x0, y0, x1, y1 in boxes]
    for shape in dict.fromkeys(shapes):
        chosen = [i for i, s in enumerate(shapes) if s == shape]
        windows = torch.stack([canvas[:, y0:y1, x0:x1] for x0, y0, x1, y1 in (boxes[i] for i in chosen)])
        out[chosen] = resize_bicubic(windows, side)
    return out


def resize_bicubic(images: Tensor, side: int) -> Tensor:
    """Resize images (N, 3, h, w) in 0 .. 1 to (N, 3, side, side) as Pillow does, to the gray level.

    Columns, then rows, and whole gray levels between the two: without that a sharp edge is 20 levels off.
    """
    levels = (images.double() * 255).round()
    height, width = levels.shape[-2:]
    if width != side:
        levels = _whole(levels @ _weights(width, side).to(levels.device).T)
    if height != side:
        levels = _whole(_weights(height, side).to(levels.device) @ levels)
    return levels.to(images) / 255


def _whole(sums: Tensor) -> Tensor:
    return ((sums + (1 << (_BITS - 1))) / (1 << _BITS)).floor().clamp(0, 255)


@lru_cache(maxsize=64)
def _weights(length: int, side: int) -> Tensor:
    """Resampling weights from ``length`` px to ``side`` px, (side, length): Pillow's cubic (a = -0.5) in whole 2 ** -22."""
    scale = length / side
    reach = max(scale, 1.0)
    centers = (torch.arange(side, dtype=torch.float64)[:, None] + 0.5) * scale
    places = torch.arange(length, dtype=torch.float64)
    first, end = ((centers + sign * 2 * reach + 0.5).floor() for sign in (-1, 1))
    x = ((places + 0.5 - centers) / reach).abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    cubic = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    cubic = torch.where((places >= first) & (places < end), cubic, 0.0)
    shares = cubic / cubic.sum(1, keepdim=True) * (1 << _BITS)
    return (shares.abs() + 0.5).floor() * shares.sign()


def average_tiles(grids: Sequence[Tensor], tiles: Sequence[Tiling], size: tuple[int, int], placement: Placement) -> Tensor:
    """Upsample the values (K, kh, kw) of each scale to ``size`` (H, W), bilinear between windows, and average, (K, H, W)."""
    stacked = []
    for grid, tiling in zip(grids, tiles, strict=True):
        columns = interpolate_weights(tiling.columns, tiling.size[1], size[1], placement).to(grid)
        stacked.append(grid @ columns.T)
    down = [interpolate_weights(t.rows, t.size[0], size[0], placement) for t in tiles]
    # one matrix product for all scales
    return (torch.cat(down, 1).to(stacked[0]) / len(tiles)) @ torch.cat(stacked, 1)


def interpolate_weights(spans: Sequence[Span], length: int, full: int, placement: Placement) -> Tensor:
    """Interpolation weights of k windows along a side of ``length`` px at ``full`` positions, (full, k), rows sum to 1.

    >>> interpolate_weights([(0, 2), (1, 3), (2, 4)], 4, 4, "tiled").round(decimals=3).tolist()[1]
    [0.375, 0.625, 0.0]
    >>> interpolate_weights([(0, 2), (1, 3), (2, 4)], 4, 4, "centres").tolist()[1]
    [0.5, 0.5, 0.0]
    """
    count = len(spans)
    if placement == "tiled":
        centers = (torch.arange(count, dtype=torch.float64) + 0.5) * length / count
    else:
        centers = torch.tensor(spans, dtype=torch.float64).mean(1)
    places = (torch.arange(full, dtype=torch.float64) + 0.5) * length / full
    after = torch.searchsorted(centers, places).clamp(1, max(1, count - 1))
    if count == 1:
        return torch.ones(full, 1)
    left, right = centers[after - 1], centers[after]
    weight = ((places - left) / (right - left)).clamp(0, 1)
    out = torch.zeros(full, count, dtype=torch.float64)
    out.scatter_(1, (after - 1)[:, None], (1 - weight)[:, None])
    out.scatter_(1, after[:, None], weight[:, None])
    return out.float()
