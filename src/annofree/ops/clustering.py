"""K-means by Lloyd's iterations, and ways to choose where it starts.

n points, C channels, K centers.  Distances are Euclidean on the features as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["choose_covering_seeds", "choose_linspace_seeds", "choose_plusplus_seeds", "choose_random_seeds", "run_kmeans"]


def run_kmeans(features: Tensor, centers: Tensor, *, iterations: int = 100, rtol: float = 1e-5, atol: float = 1e-8) -> Tensor:
    """Cluster ``features`` (n, C) from ``centers`` (K, C) and return labels (n,) int64 in 0 .. K - 1.

    A cluster that loses all its points keeps its center; the run ends when all centers are still to within
    ``rtol`` and ``atol``; the labels are those that the last centers were computed from (as the released demo of Zip).
    A step costs one matrix product over the centers that moved, as the sums are only corrected by the points that did.

    >>> points = torch.tensor([[0.0], [1.0], [9.0]])
    >>> run_kmeans(points, torch.tensor([[0.0], [8.0]])).tolist()
    [0, 0, 1]
    """
    n, k = len(features), len(centers)
    sums = torch.zeros(centers.shape, dtype=torch.float64, device=features.device)
    labels = torch.full((n,), -1, device=features.device)
    distances = features.new_empty(n, k)
    touched = torch.arange(k, device=features.device)
    for _ in range(iterations):
        # |x - c|^2 without |x|^2, which is the same for every center, and only for the centers that moved
        near = centers[touched]
        distances[:, touched] = torch.addmm((near * near).sum(1), features, near.T, alpha=-2)
        found = distances.argmin(1)
        touched = _move(sums, features, labels, found)
        labels = found
        counts = torch.bincount(labels, minlength=k)[:, None]
        moved = torch.where(counts > 0, (sums / counts.clamp(min=1)).to(centers.dtype), centers)
        still = torch.allclose(moved, centers, rtol=rtol, atol=atol)
        centers = moved
        if still:
            break
    return labels


def _move(sums: Tensor, features: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """Correct the sums (K, C) of each cluster by the points whose label changes; -1 is no cluster.

    Returns the clusters that gained or lost a point.
    """
    changed = torch.nonzero(old != new)[:, 0]
    if len(changed) > len(new) // 4:
        signed, points = _one_hot(new, sums), features
        sums.zero_()
        touched = torch.arange(len(sums), device=sums.device)
    else:
        signed, points = _one_hot(new[changed], sums) - _one_hot(old[changed], sums), features[changed]
        touched = torch.unique(torch.cat([new[changed], old[changed]]))
    sums += signed.to(features.dtype).T @ points
    return touched


def _one_hot(labels: Tensor, sums: Tensor) -> Tensor:
    """(n, K) with a one in the column of each label, and none for -1."""
    return (labels[:, None] == torch.arange(len(sums), device=labels.device)).float()


def choose_linspace_seeds(n: int, k: int) -> Tensor:
    """Choose at most ``k`` of ``n`` points at even steps, the first and the last among them; (k,) int64.

    >>> choose_linspace_seeds(11, 3).tolist()
    [0, 5, 10]
    """
    seeds: Tensor = torch.unique(torch.linspace(0, n - 1, k).round().long())
    return seeds


def choose_random_seeds(n: int, k: int, generator: torch.Generator) -> Tensor:
    """Choose ``min(k, n)`` different points at random; (k,) int64."""
    return torch.randperm(n, generator=generator)[:k]


def choose_plusplus_seeds(features: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Choose points of ``features`` (n, C), each with odds of its squared distance to those chosen (k-means++); (k,) int64.

    Fewer than ``k`` come back when fewer differ.
    """
    chosen = [int(torch.randint(len(features), (1,), generator=generator))]
    distance = torch.full((len(features),), torch.inf, device=features.device)
    while len(chosen) < k:
        distance = torch.minimum(distance, (features - features[chosen[-1]]).square().sum(1))
        if not bool((distance > 0).any()):
            break
        chosen.append(int(torch.multinomial(distance.double().cpu(), 1, generator=generator)))
    return torch.tensor(chosen, device=features.device)


def choose_covering_seeds(meanings: Tensor, *, reach: float, at_least: int, at_most: int) -> Tensor:
    """Choose points until each of ``meanings`` (n, D) is within ``reach`` of one; (k,) int64.

    ``meanings`` are unit vectors and ``reach`` is a cosine distance, 0 .. 2.  The first is the point farthest from
    the mean; each next one is the farthest from all those chosen (Gonzalez), so the number follows from how many
    different things there are, between ``at_least`` and ``at_most``.

    >>> choose_covering_seeds(torch.eye(3)[[0, 0, 1, 1, 2]], reach=0.5, at_least=1, at_most=9).tolist()
    [4, 0, 2]
    """
    nearest = meanings @ torch.nn.functional.normalize(meanings.mean(0), dim=0)
    chosen = [int(nearest.argmin())]
    nearest = meanings @ meanings[chosen[0]]
    while len(chosen) < min(at_most, len(meanings)):
        farthest = int(nearest.argmin())
        if len(chosen) >= at_least and float(nearest[farthest]) >= 1 - reach:
            break
        chosen.append(farthest)
        nearest = torch.maximum(nearest, meanings @ meanings[farthest])
    return torch.tensor(chosen, device=meanings.device)
