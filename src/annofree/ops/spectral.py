"""Spectral clusters of an image's cells, and the vote among masks that SelfMask's pseudo-labels are made by (CVPRW 2022).

N cells, D channels, M masks, R restarts, k clusters.  The graph joins any two cells by their cosine, stretched over the image
to 0 .. 1.  Its weights have rank D + 1 at most, so its eigenvectors are found, up to rounding, from a matrix of that size,
however many cells there are, and the weights themselves (N, N) are never made.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.ops.clustering import choose_plusplus_seeds

__all__ = ["choose_winner", "cluster_points", "compute_eigenvectors", "compute_pairwise_iou", "find_spanning"]

_EPS = 1e-12
_SAME = 1e-6  # cosines that differ by less are equal
_TOLERANCE = 1e-4  # of the points' variance, by which centers may still move at the end, as scikit-learn's
_ROWS = 1024  # of the cosines that are looked at together


def compute_eigenvectors(features: Tensor, k: int) -> Tensor:
    """The ``k`` smallest solutions v of (W - A) v = lambda W v for cells ``features`` (N, D), (N, k or fewer) float64.

    A (N, N) holds cosines, stretched to 0 .. 1 by their least and largest, W the sums of its rows.  Columns are in rising order
    of lambda, the first is constant, and v.T W v is 1; signs mean nothing.  At most D + 1 columns come back, and where all
    cosines are equal, so that nothing tells cells apart, the first alone.
    """
    units = F.normalize(features.double(), dim=1)
    low, high = _extremes(units.float())
    if high - low < _SAME:
        return torch.full((len(units), 1), len(units) ** -1.0, dtype=torch.float64, device=units.device)
    spread = high - low
    # A = U M U', where U has a column of ones after the features
    sides = torch.cat([units, torch.ones_like(units[:, :1])], 1)
    middle = torch.full((sides.shape[1],), 1 / spread, dtype=torch.float64, device=units.device)
    middle[-1] = -low / spread
    sums = (sides * middle) @ sides.sum(0)
    root = sums.clamp(min=_EPS).sqrt()[:, None]
    q, r = torch.linalg.qr(sides / root)
    vectors = torch.linalg.eigh((r * middle) @ r.T)[1].flip(1)[:, :k]
    smallest: Tensor = (q @ vectors) / root
    return smallest


def _extremes(units: Tensor) -> tuple[float, float]:
    """The least and the largest cosine of any two cells."""
    blocks = [units[i : i + _ROWS] @ units[i:].T for i in range(0, len(units), _ROWS)]
    return min(float(b.min()) for b in blocks), max(float(b.max()) for b in blocks)


def cluster_points(points: Tensor, k: int, generator: torch.Generator, *, restarts: int = 10, iterations: int = 300) -> Tensor:
    """Split ``points`` (N, C) into ``k`` clusters, (N) int64: the best of ``restarts`` of k-means, each from k-means++ seeds.

    The best has the least sum of squared distances.  Fewer clusters come back where fewer points differ.
    """
    starts = [choose_plusplus_seeds(points, k, generator) for _ in range(restarts)]
    count = min(map(len, starts))
    centers = points[torch.stack([s[:count] for s in starts])]
    still = _TOLERANCE * points.var(0, unbiased=False).mean()
    for _ in range(iterations):
        labels = _nearest(points, centers)[0]
        chosen = F.one_hot(labels, count).to(points)
        sizes = chosen.sum(1)[..., None]
        moved = torch.where(sizes > 0, chosen.transpose(1, 2) @ points / sizes.clamp(min=1), centers)
        shift = (moved - centers).square().sum((1, 2)).max()
        centers = moved
        if shift <= still:
            break
    labels, distances = _nearest(points, centers)
    return labels[distances.sum(1).argmin()]


def _nearest(points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest of ``centers`` (R, k, C) to each of ``points`` (N, C), and how far it is, squared; both (R, N)."""
    distances = (points * points).sum(1)[:, None] - 2 * points @ centers.transpose(1, 2) + centers.square().sum(2)[:, None]
    nearest, labels = distances.min(2)
    return labels, nearest


def find_spanning(masks: Tensor) -> Tensor:
    """Which of ``masks`` (M, H, W) bool span the image's full height or full width, (M) bool: more likely a background.

    >>> find_spanning(torch.tensor([[[1, 0, 1], [0, 0, 0]], [[0, 1, 1], [0, 0, 0]], [[1, 0, 0], [1, 0, 0]]]).bool()).tolist()
    [True, False, True]
    """
    rows, columns = masks.any(2), masks.any(1)
    return (rows[:, 0] & rows[:, -1]) | (columns[:, 0] & columns[:, -1])


def compute_pairwise_iou(masks: Tensor) -> Tensor:
    """IoU (M, M) of any two of ``masks`` (M, H, W) bool; 0 for two empty ones.

    >>> compute_pairwise_iou(torch.tensor([[[1, 1]], [[1, 0]]]).bool()).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    flat = masks.flatten(1).float()
    both, areas = flat @ flat.T, flat.sum(1)
    return both / (areas[:, None] + areas - both).clamp(min=1)


def choose_winner(masks: Tensor) -> tuple[int, float]:
    """The mask of ``masks`` (M, H, W) bool that agrees best with the others, and its mean IoU with them.

    Masks that span the full height or width stand back, unless all do.  Votes are sums of IoUs with all that stand; of equal
    ones the first wins.  The mean is 1 for a mask that stands alone.

    >>> squares = torch.zeros(4, 9, 9, dtype=torch.bool)
    >>> for mask, side in zip(squares, (9, 2, 3, 4)):
    ...     mask[:side, :side] = True
    >>> choose_winner(squares)[0]
    2
    """
    back = find_spanning(masks)
    standing = torch.arange(len(masks), device=masks.device)[~back] if not bool(back.all()) else torch.arange(len(masks))
    votes = compute_pairwise_iou(masks[standing]).double().sum(1)
    best = int((votes > votes.max() - 1e-6).float().argmax())  # rounding breaks no tie
    others = len(standing) - 1
    return int(standing[best]), float((votes[best] - 1) / others) if others else 1.0
