"""Low-resolution logits at the size of their image: steps of bilinear resizing as one matrix for rows and one for columns.

h w cells of the logits, H W pixels.  A bilinear step takes each value from two neighbors, so a few steps together are a
matrix of few entries a row, and only those pixels are computed whose cells matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Enlargement"]


@dataclass(frozen=True, eq=False)
class Enlargement:
    """Weights of cells in pixels, along ``rows`` (H, h) and ``columns`` (W, w); the cells of each pixel are neighbors."""

    rows: Tensor
    columns: Tensor

    @classmethod
    def through(cls, steps: Sequence[tuple[int, int, int]], size: tuple[int, int], device: torch.device) -> Enlargement:
        """From cells to a square's side, of which the first px are kept, to ``size`` (H, W): (cells, side, kept) an axis.

        >>> Enlargement.through([(1, 2, 2), (2, 2, 1)], (2, 1), torch.device("cpu")).columns.tolist()
        [[1.0, 0.0]]
        """
        sides = [
            _weigh_cells(kept, full) @ _weigh_cells(cells, side)[:kept]
            for (cells, side, kept), full in zip(steps, size, strict=True)
        ]
        return cls(*(side.to(device) for side in sides))

    def cut_masks(self, logits: Tensor, offset: float) -> tuple[npt.NDArray[np.bool_], Tensor]:
        """Masks (N, H, W) of logits (N, h, w) above 0, and their stability (N): pixels above ``offset`` by those above its
        negative, not a number where there are none.

        Only the part of the image is computed that cells above that negative reach; all else lies below it.
        """
        masks = np.zeros((len(logits), len(self.rows), len(self.columns)), bool)
        marked = (logits > -offset).any(0)
        down, across = (_reach(w, marked.any(1 - k)) for k, w in enumerate((self.rows, self.columns)))
        if not (len(logits) and len(down) and len(across)):
            return masks, torch.full((len(logits),), torch.nan)
        rows, columns = self.rows[down.start : down.stop], self.columns[across.start : across.stop]
        values = rows @ logits @ columns.T
        masks[:, down.start : down.stop, across.start : across.stop] = (values > 0).cpu().numpy()
        surely, perhaps = (_count(values > cut) for cut in (offset, -offset))
        return masks, surely / perhaps


def _weigh_cells(cells: int, pixels: int) -> Tensor:
    """What each of ``cells`` gives to each of ``pixels`` that a row of them is resized to, (pixels, cells)."""
    return F.interpolate(torch.eye(cells)[None], size=pixels, mode="linear", align_corners=False)[0].T.contiguous()


def _reach(weights: Tensor, marked: Tensor) -> range:
    """The pixels from the first to the last that a marked cell gives to."""
    found = (weights[:, marked] != 0).any(1).nonzero()
    return range(int(found[0]), int(found[-1]) + 1) if len(found) else range(0)


def _count(marked: Tensor) -> Tensor:
    if marked.device.type == "cpu":  # numpy counts a byte an instruction lane, torch in int64
        return torch.tensor([float(np.count_nonzero(one)) for one in marked.numpy()])
    return marked.sum((1, 2)).float().cpu()
