"""Resizing of position embeddings to other grid sizes."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError, build_unknown_error

__all__ = ["PositionRule", "resize_positions"]

PositionRule = Literal["bicubic", "bilinear", "bicubic+0.1", "bicubic+0.1-always"]
"""How a grid of position embeddings is brought to another size; always by cell centers and without antialiasing.

``bicubic``: by size (MaskCLIP's ViT, SelfMask).  ``bilinear``: by size (CLIP Surgery).  ``bicubic+0.1``: by the factor
(n + 0.1) / g, which also sets the coordinates, so that cells lie a little off (DINO and those who build on it).  These three
leave the native grid as it is; ``bicubic+0.1-always`` (ZUTIS) moves it, too.
"""


def resize_positions(
    positions: Tensor, grid: tuple[int, int], rule: PositionRule = "bicubic", native: tuple[int, int] | None = None
) -> Tensor:
    """Resize position embeddings (1 + g h * g w, C), the class token's first, to (1 + h * w, C) for a ``grid`` (h, w).

    The class token's row is kept.  ``native`` is the grid (g h, g w) they were trained at, a square one unless given.  What
    is passed in is never changed.  Raises InputError for positions that fill no such grid, and for an unknown rule.

    >>> resize_positions(torch.tensor([[9.0], [0.0], [1.0], [0.0], [1.0]]), (1, 4), "bilinear").flatten().tolist()
    [9.0, 0.0, 0.25, 0.75, 1.0]
    """
    if rule not in get_args(PositionRule):
        raise build_unknown_error("position rule", rule, get_args(PositionRule))
    side = math.isqrt(len(positions) - 1)
    old = native or (side, side)
    if old[0] * old[1] != len(positions) - 1:
        raise InputError(f"expected position embeddings of a class token and {old[0]} x {old[1]} cells, got {len(positions)}")
    if grid == old and rule != "bicubic+0.1-always":
        return positions
    cells = positions[1:].T.reshape(1, -1, *old)
    return torch.cat([positions[:1], _resized(cells, grid, rule).flatten(2)[0].T])


def _resized(cells: Tensor, grid: tuple[int, int], rule: PositionRule) -> Tensor:
    if rule in ("bicubic", "bilinear"):
        return F.interpolate(cells, size=grid, mode=rule, align_corners=False)
    factors = [(new + 0.1) / old for new, old in zip(grid, cells.shape[-2:], strict=True)]
    # the factor itself, not the ratio of the sizes, has to set the coordinates
    return F.interpolate(cells, scale_factor=factors, mode="bicubic", align_corners=False, recompute_scale_factor=False)
