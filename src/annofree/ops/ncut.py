"""Normalized cut of an image's cells into two sides, as TokenCut makes it (Wang et al., CVPR 2022).

N cells, D channels.  Two cells are joined by 1 where their cosine is above tau and by eps elsewhere.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

__all__ = ["build_affinity", "compute_ncut", "compute_second_eigenvector", "orient_vector", "solve_ncut"]

FloatArray = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]

_FEW = 64  # below it a whole decomposition is quicker, and Lanczos needs room


def compute_ncut(features: FloatArray, tau: float = 0.2, eps: float = 1e-5) -> FloatArray:
    """How far each cell of ``features`` (N, D) is on the side of the thing, (N) float32 from 0 to 1.

    The oriented eigenvector, stretched to 0 .. 1; where there is nothing to cut, 0 everywhere.

    >>> one_in_four = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    >>> compute_ncut(one_in_four).round(3).tolist()
    [0.0, 0.0, 0.0, 1.0]
    """
    vector = solve_ncut(features, tau, eps)
    spread = np.ptp(vector)
    stretched = (vector - vector.min()) / spread if spread > 0 else np.zeros_like(vector)
    return stretched.astype(np.float32)


def solve_ncut(features: FloatArray, tau: float = 0.2, eps: float = 1e-5) -> Array:
    """The second eigenvector of the graph of ``features`` (N, D), turned by the seed rule, (N).

    Where every cell is joined with every other there is nothing to cut, any vector solves the equation, and this is 0.
    """
    weights = build_affinity(features, tau, eps)
    if (weights == 1).all():
        return np.zeros(len(features))
    return orient_vector(compute_second_eigenvector(weights))


def build_affinity(features: FloatArray, tau: float, eps: float) -> Array:
    """The weights (N, N) of the graph: 1 where the cosine of two cells is above ``tau``, else ``eps``."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    units = features / np.maximum(lengths, 1e-12)
    weights: Array = np.where(units @ units.T > tau, 1.0, eps)
    np.fill_diagonal(weights, 1.0)
    return weights


def compute_second_eigenvector(weights: Array) -> Array:
    """The second smallest solution v (N) of (D - W) v = lambda D v, D the sums of the rows of W (N, N).

    v = D^-1/2 u, with u the second largest eigenvector of D^-1/2 W D^-1/2, which Lanczos finds without a dense
    decomposition.  Its sign means nothing.  It is orthogonal to the first, which is known, also where both have the same
    eigenvalue: a graph of two parts is cut between them.  Where the second eigenvalue is a double one, its direction means
    nothing either.
    """
    root = np.sqrt(weights.sum(1))
    scaled = weights / root[:, None] / root
    pair = _largest(scaled)
    first, second = root @ pair / np.linalg.norm(root)
    return np.asarray(pair @ np.array([-second, first]) / root, np.float64)


def _largest(matrix: Array) -> Array:
    """The two eigenvectors (N, 2) of the largest eigenvalues of a symmetric matrix; of one row, it and zero."""
    count = len(matrix)
    if count > _FEW:
        start = np.random.default_rng(0).standard_normal(count)  # the same at each call
        try:
            return np.asarray(eigsh(matrix, k=2, which="LA", v0=start)[1], np.float64)
        except ArpackNoConvergence:
            pass  # eigenvalues that nearly meet: decompose after all
    if count == 1:
        return np.array([[1.0, 0.0]])
    return np.asarray(eigh(matrix, subset_by_index=[count - 2, count - 1])[1], np.float64)


def orient_vector(vector: Array) -> Array:
    """Turn an eigenvector (N) so that its strongest cell, the seed, lies on the side above the mean.

    >>> orient_vector(np.array([0.1, 0.1, -0.9])).tolist()
    [-0.1, -0.1, 0.9]
    """
    seed = np.abs(vector).argmax()
    return vector if vector[seed] > vector.mean() else -vector
