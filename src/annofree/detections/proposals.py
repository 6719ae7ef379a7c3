"""Masks without a name: drawn for a grid of points or for boxes, the good ones kept, each thing once.

P prompts, M masks a prompt, N masks, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from annofree.detections.nms import suppress_masks
from annofree.structures import BoolArray, FloatArray, IntArray

__all__ = ["Grid", "Proposals", "build_point_grid"]

Grid = Literal["centers", "borders"]

_BLOCK = 64  # masks that are compared at a time with those that are kept


@dataclass(frozen=True, eq=False)
class Proposals:
    """``masks`` (N, H, W), the masker's guess of their IoU ``quality`` (N), their ``stability`` (N), both in 0 .. 1."""

    masks: BoolArray
    quality: FloatArray
    stability: FloatArray

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, keep: IntArray) -> Proposals:
        return Proposals(self.masks[keep], self.quality[keep], self.stability[keep])

    @classmethod
    def of(cls, masks: Tensor, quality: Tensor, stability: Tensor | None) -> Proposals:
        """All masks of all prompts (P, M, H, W), one by one; a masker that tells no stability is taken for stable."""
        sure = torch.ones_like(quality) if stability is None else stability
        q, s = (v.flatten().clamp(0, 1).cpu().numpy().astype(np.float32) for v in (quality, sure))
        return cls(masks.flatten(0, 1).cpu().numpy(), q, s)

    @classmethod
    def joined(cls, parts: Sequence[Proposals]) -> Proposals:
        """Several, one after the other; at least one."""
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("masks", "quality", "stability")))

    def suppress(self, iou: float, most: int, *, least: float = 0.0, largest: float = 1.0) -> Proposals:
        """The best by quality times stability, at most ``most``, no two with a mask IoU above ``iou``, strongest first.

        Masks that cover less than ``least`` or more than ``largest`` of the image are left out before, and so are empty ones.
        """
        shares = np.array([np.count_nonzero(mask) for mask in self.masks]) / max(1, self.masks[:1].size)
        fit = np.flatnonzero((shares > 0) & (shares >= least) & (shares <= largest))
        order = fit[np.argsort(-(self.quality * self.stability)[fit], kind="stable")]
        kept = np.zeros(0, np.int64)
        for start in range(0, len(order), _BLOCK):
            # those that are kept come first, so none of them goes
            both = np.concatenate([kept, order[start : start + _BLOCK]])
            rank = torch.arange(len(both), 0, -1, dtype=torch.float32)
            kept = both[suppress_masks(torch.from_numpy(self.masks[both]), rank, None, iou).numpy()[:most]]
            if len(kept) == most:
                break
        return self[kept]


def build_point_grid(side: int, size: tuple[int, int], grid: Grid = "centers") -> npt.NDArray[np.float32]:
    """Points x y (side * side, 2) of a grid over an image of ``size`` (H, W).

    ``centers`` of its cells, row by row, as SAM's own generator has them; or from border to border, ``borders``, column by
    column, as the paper of Zip has them.

    >>> build_point_grid(2, (4, 8)).tolist()
    [[2.0, 1.0], [6.0, 1.0], [2.0, 3.0], [6.0, 3.0]]
    >>> build_point_grid(2, (4, 8), "borders").tolist()
    [[0.0, 0.0], [0.0, 4.0], [8.0, 0.0], [8.0, 4.0]]
    """
    if grid == "borders":
        across, down = np.meshgrid(np.linspace(0, size[1], side), np.linspace(0, size[0], side), indexing="ij")
        return np.stack([across.ravel(), down.ravel()], 1).astype(np.float32)
    steps = (np.arange(side) + 0.5) / side
    y, x = np.meshgrid(steps * size[0], steps * size[1], indexing="ij")
    return np.stack([x.ravel(), y.ravel()], 1).astype(np.float32)
