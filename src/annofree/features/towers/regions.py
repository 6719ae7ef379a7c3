"""Dense features of boxes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import roi_align

__all__ = ["pool_regions"]

_CELLS = 7  # a side, that RoIAlign reads of each box


def pool_regions(cells: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Average dense features (1, D, h, w) in boxes (N, 4), px of the image of ``size`` (H, W) that they show, (N, D).

    >>> pool_regions(torch.ones(1, 2, 4, 4), torch.tensor([[0.0, 0.0, 8.0, 8.0]]), (16, 16)).tolist()
    [[1.0, 1.0]]
    """
    cells = cells.float()
    scale = torch.tensor([cells.shape[-1] / size[1], cells.shape[-2] / size[0]] * 2, device=cells.device)
    pooled: Tensor = roi_align(cells, [boxes.float() * scale], _CELLS, aligned=True).mean((2, 3))
    return pooled
