"""Clue maps from the similarity of image features and text.

K classes, D embedding, h w cells, H W pixels.  A cosine is absolute; an activation runs from 0 to 1 over one map
and only localizes, since every map is rescaled to that range whether or not its class is present.
"""

from __future__ import annotations

import torch
from torch import Tensor

from annofree.ops.grids import Sampling, resize_nearest
from annofree.structures import ClueMap, FeatureMap

__all__ = ["compute_cosine_clues", "mark_active_cells", "stretch_to_unit"]


def compute_cosine_clues(tokens: FeatureMap, words: Tensor, neutral: Tensor) -> ClueMap:
    """Cosine of each cell with each word, minus what every cell shares with neutral text.

    ``tokens`` (D, h, w) unit vectors, ``words`` (K, D) unit vectors, ``neutral`` (D).  The value is
    F . (T - T_neutral): the redundant-feature correction of CLIP Surgery, which Zip builds on.
    """
    values = torch.einsum("dhw,kd->khw", tokens.values, words - neutral)
    return ClueMap(values, tokens.size, "cosine")


def stretch_to_unit(clues: Tensor) -> Tensor:
    """Min-max normalize each map of (K, h, w) to 0 .. 1; a constant map becomes 0.

    >>> stretch_to_unit(torch.tensor([[[1.0, 3.0]], [[2.0, 2.0]]])).tolist()
    [[[0.0, 1.0]], [[0.0, 0.0]]]
    """
    low, high = clues.amin((1, 2), keepdim=True), clues.amax((1, 2), keepdim=True)
    spread = high - low
    return torch.where(spread > 0, (clues - low) / spread.clamp(min=torch.finfo(clues.dtype).tiny), 0.0)


def mark_active_cells(full: Tensor, grid: tuple[int, int], sampling: Sampling = "exact") -> Tensor:
    """Mark the cells (K, h, w) of activations (K, H, W) that exceed 0.7 times their map's mean.

    The released demo of Zip takes the mean over all pixels and the cell's value at row floor(i H / h), in float32 products.
    """
    return resize_nearest(full, grid, sampling) > 0.7 * full.mean((1, 2), keepdim=True)
