"""Where the one object of an image is, from a DINO's cells: LOST, TokenCut, deep spectral methods, and its attention.

D channels, h w cells, N of them.  Each is a rule of its paper, and gives one connected mask of cells (h, w).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy.ndimage import label

from annofree.ops.ncut import compute_second_eigenvector, solve_ncut

__all__ = ["DISCOVERY", "find_by_attention", "find_by_lost", "find_by_spectrum", "find_by_tokencut"]

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_LOWEST = 100  # cells of lowest degree that LOST looks at
_HEAD, _MASS = 4, 0.6  # of DINO's last attention, and how much of it is kept


def find_by_lost(keys: Floats) -> Mask:
    """LOST (Siméoni et al., BMVC 2021): the cell with the fewest alike ones, grown by those of its kind, (h, w).

    Of ``keys`` (D, h, w), not normalized.  A cell's degree counts the others with a positive product; the 100 of lowest
    degree that go with the lowest vote for all cells by their products.  Equal degrees keep their order.

    >>> keys = np.ones((2, 3, 4), np.float32)
    >>> keys[0, 1, 1:3] = -2
    >>> find_by_lost(keys).astype(int).tolist()
    [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    grid, cells = keys.shape[1:], keys.reshape(len(keys), -1)
    products = cells.T @ cells
    degrees = (products > 0).sum(1) - (np.diag(products) > 0)
    lowest = np.argsort(degrees, kind="stable")[:_LOWEST]
    seed = lowest[0]
    votes = products[lowest[products[seed, lowest] > 0]].sum(0)
    return _take_piece((votes > 0).reshape(grid), int(seed))


def find_by_tokencut(keys: Floats, tau: float = 0.2) -> Mask:
    """TokenCut (Wang et al., CVPR 2022): the piece of the strongest cell on its side of a normalized cut, (h, w)."""
    vector = solve_ncut(keys.reshape(len(keys), -1).T, tau)
    return _take_piece((vector > vector.mean()).reshape(keys.shape[1:]), int(np.abs(vector).argmax()))


def find_by_spectrum(keys: Floats) -> Mask:
    """Deep spectral methods (Melas-Kyriazi et al., CVPR 2022): the largest piece where the Fiedler vector is positive, (h, w).

    Cells are joined by their positive cosine, divided by the largest; a side that holds more than half of the cells, but not
    all, gives way to the other; an empty one stands for the whole image.
    """
    grid = keys.shape[1:]
    units = keys.reshape(len(keys), -1)
    units = units / np.maximum(np.linalg.norm(units, axis=0), 1e-12)
    weights = np.maximum(units.T @ units, 0).astype(np.float64)
    side = (compute_second_eigenvector(weights / weights.max()) > 0).reshape(grid)
    if 0.5 < side.mean() < 1:
        side = ~side
    return _take_largest(side) if side.any() else np.ones(grid, bool)


def find_by_attention(attention: Floats) -> Mask:
    """The largest piece (h, w) of the cells that hold 60 % of one head's ``attention`` (heads, h, w): DINO-seg."""
    grid = attention.shape[1:]
    mass = attention[min(_HEAD, len(attention) - 1)].ravel()
    order = np.argsort(mass, kind="stable")
    lost = np.cumsum(mass[order]) / mass.sum() <= 1 - _MASS
    side = np.ones(mass.size, bool)
    side[order[lost]] = False
    return _take_largest(side.reshape(grid))


DISCOVERY: Mapping[str, Callable[[Floats], Mask]] = MappingProxyType(
    {"lost": find_by_lost, "tokencut": find_by_tokencut, "dss": find_by_spectrum, "dino-seg": find_by_attention}
)
"""The rules by name; ``dino-seg`` reads attention, the others keys."""


def _take_piece(side: Mask, seed: int) -> Mask:
    """The connected piece of ``side`` (h, w) that holds a cell; empty where the cell is outside."""
    pieces = label(side)[0]
    number = pieces.ravel()[seed]
    return np.asarray(pieces == number if number else np.zeros_like(side), bool)


def _take_largest(side: Mask) -> Mask:
    """The connected piece of ``side`` (h, w) with most cells, the first of equals."""
    pieces = label(side)[0]
    return np.asarray(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1, bool)
