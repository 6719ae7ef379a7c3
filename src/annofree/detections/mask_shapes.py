"""Shapes of masks, whatever their place and size: whether two could be outlines of the same kind of thing.

N masks, S side of a shape in cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.ops.rle import RLE, compute_rle_boxes, decode_rle

__all__ = ["SIDE", "compare_shapes", "measure_shapes"]

SIDE = 16
"""Cells of a shape a side."""


def measure_shapes(rles: Sequence[RLE]) -> tuple[Tensor, Tensor]:
    """Return what each mask covers of the cells of its box, (N, S, S) uint8 in 0 .. 255, and its box's aspect, log w/h, (N).

    >>> shapes, aspects = measure_shapes([{"size": [2, 3], "counts": b"24"}])
    >>> shapes.shape, int(shapes.min()), aspects.tolist()
    (torch.Size([1, 16, 16]), 255, [0.0])
    """
    if not rles:
        return torch.zeros(0, SIDE, SIDE, dtype=torch.uint8), torch.zeros(0)
    boxes = torch.from_numpy(compute_rle_boxes(rles))
    shapes = torch.stack([_measure(rle, box) for rle, box in zip(rles, boxes.int().tolist(), strict=True)])
    width, height = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1).unbind(1)
    return shapes, (width / height).log()


def _measure(rle: RLE, box: Sequence[int]) -> Tensor:
    x0, y0, x1, y1 = box
    inside = torch.from_numpy(decode_rle(rle)[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)].astype("float32"))
    return (255 * F.adaptive_avg_pool2d(inside[None], SIDE)[0]).round().byte()


def compare_shapes(shapes: Tensor, aspects: Tensor, others: Tensor, their_aspects: Tensor) -> Tensor:
    """Return how alike N shapes (N, S, S) are to k others of each (N, k, S, S), (N, k) in 0 .. 1.

    It is the IoU of the covered cells, of the shape or of its mirror image, times the ratio of the two aspects.

    >>> half, full = torch.zeros(1, 2, 2), torch.full((1, 1, 2, 2), 255.0)
    >>> half[:, 0] = 255
    >>> compare_shapes(half, torch.zeros(1), full, torch.zeros(1, 1)).tolist()
    [[0.5]]
    """
    ours, theirs = shapes.float()[:, None], others.float()
    alike = torch.maximum(_compute_iou(ours, theirs), _compute_iou(ours.flip(-1), theirs))
    return alike * (-(aspects[:, None] - their_aspects).abs()).exp()


def _compute_iou(ours: Tensor, theirs: Tensor) -> Tensor:
    shared, either = torch.minimum(ours, theirs).sum((-2, -1)), torch.maximum(ours, theirs).sum((-2, -1))
    return shared / either.clamp(min=1)
