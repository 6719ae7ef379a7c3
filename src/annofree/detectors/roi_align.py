"""RoIAlign over a feature pyramid, with aligned corners of pixels (He et al., ICCV 2017, as corrected in detectron2).

torchvision's MultiScaleRoIAlign is half a cell off by convention, and takes no argument for the other one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

from annofree.detectors.backbones import LEVELS, STRIDES

__all__ = ["assign_levels", "read_boxes", "read_masks"]

_EPS = 1e-8


def assign_levels(boxes: Tensor, scale: int) -> Tensor:
    """The level of each box (N, 4), from 0: that of stride 16 for sides of ``scale`` to below twice that (FPN, eq. 1).

    >>> assign_levels(torch.tensor([[0.0, 0, 224, 224], [0, 0, 223, 223], [0, 0, 5, 5], [0, 0, 999, 999]]), 224).tolist()
    [2, 1, 0, 3]
    """
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
    return (2 + torch.log2(side / scale + _EPS)).floor().clamp(0, len(STRIDES) - 1).long()


def read_boxes(levels: Mapping[str, Tensor], boxes: Sequence[Tensor], cells: int, scale: int, sampling: int) -> Tensor:
    """Read boxes (N, 4) px of each image from its level of the pyramid; returns (sum of N, C, cells, cells), in their order.

    ``scale`` as in ``assign_levels``; ``sampling`` points a bin and axis, 0 for one a cell.
    """
    together = torch.cat(list(boxes))
    image = torch.cat([b.new_full((b.shape[0], 1), i) for i, b in enumerate(boxes)])
    regions, chosen = torch.cat([image, together], 1), assign_levels(together, scale)
    parts, places = [], []
    for i, (name, stride) in enumerate(zip(LEVELS, STRIDES, strict=True)):
        places.append(torch.where(chosen == i)[0])
        parts.append(_roi_align(levels[name], regions[places[-1]], cells, 1 / stride, sampling))
    # one gather puts them in order again, and exports as it is
    return torch.cat(parts)[torch.argsort(torch.cat(places))]


def read_masks(masks: Tensor, boxes: Tensor, matched: Tensor, cells: int) -> Tensor:
    """The part of a mask (M, H, W) bool within each box (N, 4), ``matched`` (N) says which, as (N, cells, cells) of 0 and 1."""
    regions = torch.cat([matched[:, None].to(boxes), boxes], 1)
    return (_roi_align(masks[:, None].to(boxes), regions, cells, 1.0, 0)[:, 0] >= 0.5).to(boxes)


def _roi_align(maps: Tensor, regions: Tensor, cells: int, scale: float, sampling: int) -> Tensor:
    pooled: Tensor = roi_align(maps, regions, (cells, cells), scale, sampling, aligned=True)
    return pooled
