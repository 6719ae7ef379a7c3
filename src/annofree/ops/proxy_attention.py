"""Attention whose weights come from elsewhere: cells are mixed by how alike another network finds them.

C channels of what is mixed, D of what tells likeness, N cells.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["average_by_likeness"]

_AT_ONCE = 2**24  # weights in memory, 64 MiB


def average_by_likeness(
    values: Tensor, features: Tensor, shift: float, scale: float, groups: Tensor | None = None, *, at_once: int = _AT_ONCE
) -> Tensor:
    """Mix the ``values`` (C, N) of cells by the likeness of their ``features`` (D, N), (C, N).

    The weight of cell j for cell i is the softmax over j of ``scale`` times (their cosine less ``shift`` times the mean cosine
    of all pairs); where that is negative, or i and j are of different ``groups`` (N), there is none.  A cell always sees
    itself.  Rows are taken a few at a time, so that no array of cells x cells is held beyond ``at_once`` weights.

    >>> average_by_likeness(torch.tensor([[0.0, 1.0, 5.0]]), torch.tensor([[1.0, 1.0, -1.0]]), 1.0, 1.0).tolist()
    [[0.5, 0.5, 5.0]]
    """
    units, count = F.normalize(features, dim=0), values.shape[1]
    middle = shift * (units.mean(1) ** 2).sum()  # the mean cosine of all pairs, without the pairs
    mixed, step = torch.empty_like(values), max(1, at_once // max(1, count))
    for start in range(0, count, step):
        rows = slice(start, min(start + step, count))
        likeness = scale * (units[:, rows].T @ units - middle)
        hidden = likeness < 0
        if groups is not None:
            hidden |= groups[rows, None] != groups
        hidden[torch.arange(rows.stop - start), torch.arange(start, rows.stop)] = False
        mixed[:, rows] = values @ likeness.masked_fill_(hidden, -torch.inf).softmax(1).T
    return mixed
