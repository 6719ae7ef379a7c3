"""Fragments: the connected pieces of the clusters of a feature map.

Clusters of intermediate CLIP features form bands *between* objects as well as regions on them (Zip, section 3.2), so
their pieces end at object boundaries.  Nothing here depends on the classes: one call serves every vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from annofree.errors import InputError
from annofree.ops import clustering
from annofree.ops.grids import resize_maps
from annofree.ops.regions import Connectivity, compute_boxes, label_components
from annofree.structures import FeatureMap, Fragments

__all__ = ["Init", "Seeding", "cut_fragments", "extract_fragments"]

Init = Literal["linspace", "random", "k-means++", "semantic"]


@dataclass(frozen=True)
class Seeding:
    """Initialization of K-means."""

    # ``linspace`` (even steps over the flattened map: the released demo), ``random``, ``k-means++``, or ``semantic``: the paper
    # chooses centers and their number from the activation maps, in an appendix that is not public. Ours asks the text-aligned
    # tokens, which hold the activation of every possible name: farthest-point seeds over them, each of whose centers is the
    # mean boundary feature of the cells that are nearest to it in meaning
    init: Init = "linspace"
    # K, the number of clusters; 20 in the released demo; of ``semantic``, the most there may be
    clusters: int = 20
    # the fewest seeds of ``semantic``; ours
    at_least: int = 8
    # the cosine distance to a seed within which ``semantic`` wants every token, and seeds until it is; ours
    reach: float = 0.15
    # of the random numbers of ``random`` and ``k-means++``
    seed: int = 0

    def choose_centers(self, features: Tensor, tokens: FeatureMap, grid: tuple[int, int]) -> Tensor:
        """Choose the first centers (K, C) for boundary features (n, C) that lie on ``grid`` (h, w)."""
        generator = torch.Generator().manual_seed(self.seed)
        if self.init == "linspace":
            return features[clustering.choose_linspace_seeds(len(features), self.clusters).to(features.device)]
        if self.init == "random":
            return features[clustering.choose_random_seeds(len(features), self.clusters, generator).to(features.device)]
        if self.init == "k-means++":
            return features[clustering.choose_plusplus_seeds(features, self.clusters, generator)]
        if self.init == "semantic":
            return self._semantic(features, tokens, grid)
        raise InputError(f"unknown init {self.init!r}; known: linspace, random, k-means++, semantic")

    def _semantic(self, features: Tensor, tokens: FeatureMap, grid: tuple[int, int]) -> Tensor:
        fine = torch.nn.functional.normalize(resize_maps(tokens.values, grid).flatten(1), dim=0).T
        seeds = clustering.choose_covering_seeds(fine, reach=self.reach, at_least=self.at_least, at_most=self.clusters)
        nearest = (fine @ fine[seeds].T).argmax(1)
        one_hot = torch.nn.functional.one_hot(nearest, len(seeds)).to(features.dtype)
        return (one_hot.T @ features) / one_hot.sum(0).clamp(min=1)[:, None]


def extract_fragments(boundaries: FeatureMap, tokens: FeatureMap, seeding: Seeding, connectivity: Connectivity) -> Fragments:
    """Cluster boundary features (C, h, w) and split the clusters into connected fragments."""
    grid = (boundaries.values.shape[1], boundaries.values.shape[2])
    features = boundaries.values.flatten(1).T.float().contiguous()
    labels = clustering.run_kmeans(features, seeding.choose_centers(features, tokens, grid))
    return cut_fragments(labels.view(grid) + 1, connectivity)


def cut_fragments(clusters: Tensor, connectivity: Connectivity) -> Fragments:
    """Split a cluster map (h, w), numbered from 1, into connected fragments with area and box.

    >>> pieces = cut_fragments(torch.tensor([[1, 2, 1], [1, 2, 2]]), 4)
    >>> pieces.labels.tolist(), pieces.area.tolist(), pieces.cluster.tolist()
    ([[1, 2, 3], [1, 2, 2]], [2, 3, 1], [1, 2, 1])
    """
    labels = label_components(clusters, connectivity)
    area = torch.bincount(labels.flatten())[1:]
    cluster = torch.zeros(len(area) + 1, dtype=torch.long, device=labels.device)
    cluster[labels.flatten()] = clusters.flatten()
    return Fragments(labels, area, compute_boxes(labels, len(area)), cluster[1:])
