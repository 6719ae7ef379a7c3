"""Connected regions of label maps, measured all at once."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from skimage.measure import label
from torch import Tensor

__all__ = ["Connectivity", "compute_boxes", "drop_small", "label_components"]

Connectivity = Literal[4, 8]


def label_components(labels: Tensor, connectivity: Connectivity) -> Tensor:
    """Number the connected regions of equal label in ``labels`` (h, w); 0 is nothing; (h, w) int64.

    Regions are numbered from 1 in row-major order of their first cell.

    >>> label_components(torch.tensor([[1, 1, 2], [0, 2, 1]]), 4).tolist()
    [[1, 1, 2], [0, 3, 4]]
    """
    regions = label(labels.cpu().numpy(), background=0, connectivity=1 if connectivity == 4 else 2)
    return torch.from_numpy(np.asarray(regions, np.int64)).to(labels.device)


def compute_boxes(regions: Tensor, count: int) -> Tensor:
    """Tight boxes (count, 4) int64, x0 y0 x1 y1 in cells, end-exclusive, of regions 1 .. count in a map (h, w).

    >>> compute_boxes(torch.tensor([[0, 1, 1], [2, 0, 1]]), 2).tolist()
    [[1, 0, 3, 2], [0, 1, 1, 2]]
    """
    empty = (slice(0, 0), slice(0, 0))
    found = ndimage.find_objects(regions.cpu().numpy(), max_label=count) if count else []
    boxes = [[x.start, y.start, x.stop, y.stop] for y, x in (place or empty for place in found)]
    return torch.tensor(boxes, dtype=torch.long, device=regions.device).view(-1, 4)


def drop_small(regions: Tensor, min_area: int) -> Tensor:
    """Drop regions of fewer than ``min_area`` cells and number the rest from 1 in the same order.

    >>> drop_small(torch.tensor([[1, 2, 2]]), 2).tolist()
    [[0, 1, 1]]
    """
    areas = torch.bincount(regions.flatten())
    kept = areas >= min_area
    kept[0] = False
    return (kept.cumsum(0) * kept)[regions]
