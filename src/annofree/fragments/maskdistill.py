"""MaskDistill's mask of an image (Van Gansbeke et al., 2022): the cells that go with what a DINO's class token attends to.

D channels, h w cells, N of them.  The released code ranks cells by the products of the class token's query with their keys,
mean of all heads but the last; attention is the softmax of these in each head, so the mean of its logarithm ranks them alike.
Before, the released code sets those cells to 0 that lie beyond half of the sum of the products.  That depends on their absolute
size, which attention does not tell: it is left out.  It matters where this half lies in fewer cells than are candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import label

from annofree.errors import InputError

__all__ = ["MaskDistillSettings", "find_by_affinity", "rank_cells"]

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MaskDistillSettings:
    """How a mask is grown; the defaults are those of the released code."""

    # share of all cells, those most attended to, that may be joined to the first of them
    share: float = 0.4
    # last heads whose attention is left out: 1 of 6 as released
    heads_out: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.heads_out < 0:
            raise InputError(f"expected a share in 0 .. 1 and heads_out from 0, got {self.share:g} and {self.heads_out}")


def find_by_affinity(keys: Floats, attention: Floats, settings: MaskDistillSettings | None = None) -> Mask:
    """The mask (h, w) for ``keys`` (D, h, w), heads concatenated, and the class token's ``attention`` (heads, h, w).

    The cell most attended to is the source.  Of the candidates those whose key has a positive product with the source's vote
    for all cells by their products; the connected piece of positive votes that holds the source is the mask.

    >>> keys, attention = np.full((1, 3, 4), -1, np.float32), np.full((2, 3, 4), 0.05, np.float32)
    >>> keys[0, 1, 1:3], attention[:, 1, 1] = 1, 0.3
    >>> find_by_affinity(keys, attention, MaskDistillSettings(share=0.2)).astype(int).tolist()
    [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    settings = settings or MaskDistillSettings()
    cells, ranks = keys.reshape(len(keys), -1), rank_cells(attention, settings.heads_out)
    source, candidates = ranks[0], ranks[: max(1, int(settings.share * len(ranks)))]
    nodes = candidates[cells[:, source] @ cells[:, candidates] > 0]
    votes = cells[:, nodes].sum(1) @ cells
    pieces = label((votes > 0).reshape(keys.shape[1:]))[0]
    own = pieces.ravel()[source]
    return np.asarray(pieces == own if own else np.zeros_like(pieces), bool)


def rank_cells(attention: Floats, heads_out: int = 1) -> npt.NDArray[np.int64]:
    """Cells (N) by falling mean of the logarithm of ``attention`` (heads, h, w), the first of equals first; one head stays."""
    used = attention[: max(1, len(attention) - heads_out)].reshape(-1, attention[0].size)
    seeds = np.log(np.maximum(used, np.finfo(np.float32).tiny)).mean(0, dtype=np.float64)
    return np.argsort(-seeds, kind="stable")
