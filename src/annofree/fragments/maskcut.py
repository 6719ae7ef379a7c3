"""MaskCut: several things of an image, one normalized cut after another (CutLER, CVPR 2023), from the keys of a DINO.

N cells, h w their grid, D channels.  Cells of what was found before are painted over: alike with nothing, themselves included,
they are one node of the next graph, which therefore shrinks.  A cut is the second eigenvector of a symmetric matrix whose first
is known, so a few steps of Lanczos find it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from scipy.ndimage import label

from annofree.errors import InputError

__all__ = ["Cut", "MaskCutSettings", "cut_masks", "solve_cut"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_EPS = 1e-5  # what joins cells that are not alike
_STEPS, _CLOSE = 60, 1e-6  # Lanczos at most, and how near to an eigenvector, in gaps between eigenvalues
_UNDECIDED = 1e-6  # of the largest entry, from the mean
_TIED = 1e-6  # of the largest entry, below it


@dataclass(frozen=True)
class MaskCutSettings:
    """How images are cut; the defaults are those that CutLER's labels were made with."""

    # masks an image at most, and rounds
    masks: int = 3
    # cosine above which two cells are joined
    tau: float = 0.15
    # IoU with the round before above which a mask is none
    repeat: float = 0.5
    # share of cells up to which a mask of a later round is none
    small: float = 0.01

    def __post_init__(self) -> None:
        if self.masks < 1 or not -1 <= self.tau <= 1 or not 0 <= self.repeat <= 1 or not 0 <= self.small < 1:
            raise InputError(f"expected masks >= 1, tau in -1 .. 1, repeat and small in 0 .. 1, got {self}")


@dataclass(frozen=True)
class Cut:
    """A mask (h, w) of cells, how many of them lie so near to the threshold that rounding decides, and the cut's ``vector``.

    The vector (h, w) is the second eigenvector, before its mean parts it and one connected side is taken.
    """

    mask: Mask
    undecided: int
    vector: Doubles | None = None


def cut_masks(keys: Floats, settings: MaskCutSettings | None = None) -> list[Cut]:
    """Cut what ``keys`` (D, h, w) show into up to ``settings.masks`` masks, an empty one where a round finds none.

    Masks are as their round cut them: they may overlap earlier ones, which win.

    >>> keys = np.zeros((2, 4, 6), np.float32)
    >>> keys[0], keys[0, 1:3, 1:3], keys[1, 1:3, 1:3] = 1, 0, 1
    >>> cut_masks(keys, MaskCutSettings(masks=1))[0].mask.sum()
    np.int64(4)
    """
    settings = settings or MaskCutSettings()
    grid = keys.shape[1:]
    painted, before = np.zeros(grid, bool), np.zeros(grid, bool)
    vector: Doubles | None = None
    found: list[Cut] = []
    for number in range(settings.masks):
        if vector is None:  # nothing was painted since: the same cut
            vector = solve_cut(keys.reshape(len(keys), -1).T, painted.ravel(), settings.tau)
        mask = _take_side(vector.reshape(grid))
        if number and (_iou(mask, before) > settings.repeat or mask.mean() <= settings.small):
            mask = np.zeros(grid, bool)
        found.append(Cut(mask, _count_undecided(vector), vector.reshape(grid)))
        before = mask
        if (mask & ~painted).any():
            painted, vector = painted | mask, None
    return found


def solve_cut(features: Floats, painted: Mask, tau: float) -> Doubles:
    """The second smallest solution y (N) of (D - A) y = lambda D y, its strongest entry positive; 0 where nothing can be cut.

    A (N, N) is 1 where the cosine of ``features`` (N, D) is above ``tau`` and 1e-5 elsewhere, and in all rows and columns of
    ``painted`` (N) cells, the diagonal included; D holds the sums of its rows.
    """
    free = features[~painted]
    units = free / np.maximum(np.linalg.norm(free, axis=1, keepdims=True), 1e-12)
    graph = _Graph((units @ units.T > tau).astype(np.float32), int(painted.sum()))
    if graph.is_whole():
        return np.zeros(len(features))
    inner, outer = graph.cut()
    vector = np.full(len(features), outer)
    vector[~painted] = inner
    strongest: float = vector[np.abs(vector).argmax()]
    return vector if strongest > 0 else -vector


class _Graph:
    """Free cells joined by ``alike`` (n, n) 0 or 1, and ``hidden`` cells as one node; D^-1/2 A D^-1/2 without making it."""

    def __init__(self, alike: Floats, hidden: int) -> None:
        self.alike, self.hidden = alike, hidden
        count = len(alike) + hidden
        degrees = np.concatenate([(1 - _EPS) * alike.sum(1, dtype=np.float64) + _EPS * count, [_EPS * count]])
        self._members = np.concatenate([np.ones(len(alike)), [hidden]])  # cells of each node
        self._root = 1 / np.sqrt(degrees)
        first = np.sqrt(degrees * self._members)
        self._first = first / np.linalg.norm(first)

    def is_whole(self) -> bool:
        """Whether all are joined with all, or none is left, so that there is nothing to cut."""
        return not len(self.alike) or (not self.hidden and bool(self.alike.all()))

    def multiply(self, vector: Doubles) -> Doubles:
        """The matrix by a vector (n + 1), the node of hidden cells last, in units that keep it symmetric."""
        weighted = self._root * vector * np.sqrt(self._members)
        plain = np.zeros_like(vector)
        plain[:-1] = (1 - _EPS) * (self.alike @ weighted[:-1].astype(np.float32))
        return np.asarray(self._root * np.sqrt(self._members) * (plain + _EPS * weighted.sum()), np.float64)

    def cut(self) -> tuple[Doubles, float]:
        """The second eigenvector at the free cells (n), and at a hidden one."""
        vector = self._lanczos()
        if vector is None:
            vector = self._dense()
        cells = self._root * vector
        return cells[:-1], float(cells[-1] / np.sqrt(self.hidden)) if self.hidden else 0.0

    def _lanczos(self) -> Doubles | None:
        """The largest eigenvector beside the known first one, re-orthogonalized at each step; None if it does not settle."""
        size = len(self._first) - (0 if self.hidden else 1)
        basis = np.zeros((min(_STEPS, size) + 1, len(self._first)))
        start = np.random.default_rng(0).standard_normal(len(self._first))  # the same at each call
        basis[0] = self._orthogonal(start * (self._members > 0), basis[:0])
        basis[0] /= np.linalg.norm(basis[0])
        diagonal, beside = np.zeros(len(basis)), np.zeros(len(basis))
        for k in range(len(basis) - 1):
            image = self.multiply(basis[k])
            diagonal[k] = image @ basis[k]
            image = self._orthogonal(image, basis[: k + 1])
            beside[k] = np.linalg.norm(image)
            if k >= 2:
                values, vectors = _solve_tridiagonal(diagonal[: k + 1], beside[:k])
                gap = values[-1] - values[-2]
                if beside[k] * abs(vectors[-1, -1]) <= max(_CLOSE * gap, 1e-9):
                    return np.asarray(vectors[:, -1] @ basis[: k + 1])
            if beside[k] < 1e-12:
                return None
            basis[k + 1] = image / beside[k]
        return None

    def _orthogonal(self, vector: Doubles, basis: Doubles) -> Doubles:
        for _ in range(2):
            vector = vector - (self._first @ vector) * self._first
            vector = vector - (basis @ vector) @ basis
        return vector

    def _dense(self) -> Doubles:
        """The same by a whole decomposition: where eigenvalues nearly meet."""
        size = len(self._first) if self.hidden else len(self.alike)
        matrix = np.zeros((size, size))
        for k in range(size):
            unit = np.zeros(len(self._first))
            unit[k] = 1
            matrix[k] = self.multiply(unit)[:size]
        last = [max(size - 2, 0)] * 2
        vector = np.zeros(len(self._first))
        vector[:size] = eigh((matrix + matrix.T) / 2, subset_by_index=last)[1][:, 0]
        return vector


def _solve_tridiagonal(diagonal: Doubles, beside: Doubles) -> tuple[Doubles, Doubles]:
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
    return values, vectors


def _take_side(vector: Doubles) -> Mask:
    """The connected side (h, w) of a cut: that of the seed, or the other one where the seed's holds three corners."""
    side = vector > vector.mean()
    if not vector.any():
        return np.zeros_like(side)
    if side[[0, 0, -1, -1], [0, -1, 0, -1]].sum() >= 3:
        side, vector = ~side, -vector
    # painted cells are all alike: of equals, the first
    seed = np.unravel_index((vector >= vector.max() - _TIED * np.abs(vector).max()).argmax(), vector.shape)
    pieces = label(side)[0]
    return np.asarray(pieces == pieces[seed] if side[seed] else np.zeros_like(side), bool)


def _count_undecided(vector: Doubles) -> int:
    return int((np.abs(vector - vector.mean()) < _UNDECIDED * np.abs(vector).max()).sum())


def _iou(one: Mask, other: Mask) -> float:
    union = int((one | other).sum())
    return float((one & other).sum() / union) if union else 0.0
