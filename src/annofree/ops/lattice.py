"""Gaussian filtering in many dimensions on the permutohedral lattice (Adams, Baek and Davis, Eurographics 2010).

N points, d dimensions of their features, M vertices of the lattice, C channels.  The lattice depends on the points alone: it is
built once, and each filter of values costs a splat, d + 1 blurs and a slice.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from annofree.errors import InputError

__all__ = ["Lattice"]

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


class Lattice:
    """The lattice of points with ``features`` (N, d), measured in standard deviations of the Gaussian.

    Raises InputError for features of another shape and for such as are not finite.

    >>> lattice = Lattice(np.array([[0.0], [0.1], [9.0]], np.float32))
    >>> near, same, far = lattice.filter(np.array([1.0, 0.0, 0.0], np.float32)).tolist()
    >>> near > 0.9 * same > 0 and far == 0
    True
    """

    def __init__(self, features: Floats) -> None:
        if features.ndim != 2 or not features.size or not np.isfinite(features).all():
            raise InputError(f"expected finite features (N, d) of points, got {features.dtype} {features.shape}")
        self.dimensions = features.shape[1]
        keys, weights = _find_simplices(features.astype(np.float64))
        vertices, place, codes, scale = _number_vertices(keys)
        self.vertices = len(vertices)
        self._neighbors = [_find_neighbors(vertices, j, codes, scale) for j in range(self.dimensions + 1)]
        corners = self.dimensions + 1
        starts = np.arange(0, len(features) * corners + 1, corners)
        self._slice = csr_matrix((weights.astype(np.float32).ravel(), place.ravel(), starts), (len(features), self.vertices))
        self._splat = self._slice.T.tocsr()

    def filter(self, values: Floats) -> Floats:
        """The sum of ``values`` (N) or (N, C) around each point, weighted by a Gaussian up to a constant, of the same shape."""
        held = self._splat @ values.astype(np.float32)
        empty = np.zeros((1, *held.shape[1:]), np.float32)  # what a neighbor that is no vertex holds
        for before, after in self._neighbors:
            around = np.concatenate([held, empty])
            held = held + 0.5 * (around[before] + around[after])
        return np.asarray(self._slice @ held, np.float32)


def _find_simplices(features: npt.NDArray[np.float64]) -> tuple[Integers, npt.NDArray[np.float64]]:
    """The corners (N, d + 1, d + 1) of the simplex that holds each point, and its barycentric weights (N, d + 1)."""
    count, d = features.shape
    lifted = _lift(features)
    remainder = np.round(lifted / (d + 1)) * (d + 1)
    apart = lifted - remainder
    rank = np.argsort(np.argsort(-apart, axis=1, kind="stable"), axis=1, kind="stable")
    rank += (remainder.sum(1) / (d + 1)).round().astype(np.int64)[:, None]
    low, high = rank < 0, rank > d
    rank += (d + 1) * (low.astype(np.int64) - high)
    remainder += (d + 1) * (low.astype(np.float64) - high)
    share = (lifted - remainder) / (d + 1)
    weights = np.zeros((count, d + 2))
    rows = np.arange(count)[:, None]
    np.add.at(weights, (rows, d - rank), share)
    np.add.at(weights, (rows, d + 1 - rank), -share)
    weights[:, 0] += 1 + weights[:, d + 1]
    k, r = np.meshgrid(np.arange(d + 1), np.arange(d + 1), indexing="ij")
    canonical = np.where(r <= d - k, k, k - (d + 1))  # the corner k at a coordinate of rank r
    keys = remainder.astype(np.int64)[:, None] + canonical[:, rank].transpose(1, 0, 2)
    return keys, weights[:, : d + 1]


def _lift(features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Points (N, d) on the plane of d + 1 coordinates that sum to 0, scaled so that the blur has a deviation of one."""
    d = features.shape[1]
    j = np.arange(1, d + 1)
    scaled = features * (d + 1) * np.sqrt(2 / 3) / np.sqrt(j * (j + 1))
    after = np.cumsum(scaled[:, ::-1], axis=1)[:, ::-1]  # the sum from each dimension on
    lifted = np.empty((len(features), d + 1))
    lifted[:, 0] = after[:, 0]
    lifted[:, 1:] = np.concatenate([after[:, 1:], np.zeros((len(features), 1))], 1) - j * scaled
    return lifted


def _number_vertices(keys: Integers) -> tuple[Integers, Integers, Integers, Integers]:
    """The vertices (M, d + 1), the number of each corner (N, d + 1), the sorted codes (M), and what a key's code is made with.

    The last coordinate follows from the others.  One is left free on each side, for neighbors.
    """
    flat = keys.reshape(-1, keys.shape[-1])[:, :-1]
    low, high = flat.min(0) - keys.shape[-1], flat.max(0) + keys.shape[-1]
    radix = np.concatenate([np.cumprod((high - low + 1)[::-1])[-2::-1], [1]]).astype(np.int64)
    if float(np.prod((high - low + 1).astype(np.float64))) >= 2.0**62:
        raise InputError("the features of points are too far apart, in standard deviations of the Gaussian, to be filtered")
    scale = np.stack([low, radix])
    codes, first, place = np.unique(_encode(flat, scale), return_index=True, return_inverse=True)
    return keys.reshape(-1, keys.shape[-1])[first], place.reshape(keys.shape[:2]), codes, scale


def _encode(coordinates: Integers, scale: Integers) -> Integers:
    """One number a key, of its first d coordinates (..., d)."""
    code: Integers = ((coordinates - scale[0]) * scale[1]).sum(-1)
    return code


def _find_neighbors(vertices: Integers, j: int, codes: Integers, scale: Integers) -> tuple[Integers, Integers]:
    """The vertices before and after each along axis ``j``, (M) each; M where there is none."""
    found = []
    for sign in (1, -1):
        moved = vertices + sign
        moved[:, j] -= sign * vertices.shape[1]
        code = _encode(moved[:, :-1], scale)
        at = np.searchsorted(codes, code).clip(max=len(codes) - 1)
        found.append(np.where(codes[at] == code, at, len(codes)))
    return found[0], found[1]
