"""Masks of boxes back to masks of images."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["paste"]


def paste(probabilities: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """Stretch masks (N, M, M) of probabilities over their boxes (N, 4) px, in images of ``size``; (N, H, W) bool.

    Bilinear between the centers of cells, with zeros outside of them: what ``grid_sample`` gives, up to rounding, read in the
    box alone.
    """
    pasted = torch.zeros((len(boxes), *size), dtype=torch.bool, device=boxes.device)
    if not len(boxes):
        return pasted
    edges = torch.tensor([size[1], size[0]] * 2, device=boxes.device)
    # a mask fades out over half a cell beyond its box, but stays below one half there
    low, high = boxes[:, :2].floor().long().clamp(min=0).tolist(), boxes[:, 2:].ceil().long().minimum(edges[2:]).tolist()
    for one, cells, box, (x0, y0), (x1, y1) in zip(pasted, probabilities.float(), boxes.float(), low, high, strict=True):
        if x1 > x0 and y1 > y0:
            rows, columns = _weights(y0, y1, box[1], box[3], len(cells)), _weights(x0, x1, box[0], box[2], len(cells))
            one[y0:y1, x0:x1] = rows @ cells @ columns.T >= threshold
    return pasted


def _weights(start: int, end: int, near: Tensor, far: Tensor, cells: int) -> Tensor:
    """What pixels from ``start`` to ``end`` take of each cell between ``near`` and ``far``, (pixels, cells)."""
    centers = torch.arange(start, end, device=near.device) + 0.5
    places = (centers - near) / (far - near).clamp(min=1e-6) * cells - 0.5
    return (1 - (places[:, None] - torch.arange(cells, device=near.device)).abs()).clamp(min=0)
