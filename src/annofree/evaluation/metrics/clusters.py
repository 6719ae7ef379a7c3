"""Cluster and name: class-aware scores of predictions that have no names, as MaskDistill and others without text report them.

    features of the predictions -> k-means, a cluster a class -> clusters matched to classes by the truth -> names

The truth names the clusters, so the scores are no scores of naming: they say how well things of one class lie together.
N predictions, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError
from annofree.evaluation.metrics.predictions import Row, group_by_image, read_image_sizes
from annofree.evaluation.metrics.shapes import compute_overlaps
from annofree.formats.coco import CocoFile
from annofree.ops.clustering import choose_plusplus_seeds, run_kmeans
from annofree.structures import IntArray

__all__ = ["ClusterNames", "cluster_features", "find_true_classes", "match_clusters", "name_clusters"]

NOTE = (
    "names are those of clusters of features, matched with the truth (Hungarian): the truth was used, so class-aware scores "
    "are not comparable with those of names that were found without it"
)


@dataclass(frozen=True)
class ClusterNames:
    """What became of the clusters: the class name of each and its predictions, and how many fit their cluster."""

    # class name of each cluster, in order
    names: tuple[str, ...]
    # predictions in each
    sizes: tuple[int, ...]
    # predictions that overlap something true
    overlapping: int
    # of them, those whose best true box is of the class of their cluster
    matched: int
    # of the generator that k-means starts from
    seed: int = 0
    # what has to be said beside the scores
    note: str = NOTE

    def to_json_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def name_clusters(
    truth: CocoFile, rows: Sequence[Row], features: Tensor, seed: int = 0
) -> tuple[list[dict[str, Any]], ClusterNames]:
    """Give predictions the categories of their clusters: as many clusters of ``features`` (N, D) as the truth has classes.

    Raises InputError unless there is a row of finite features for each prediction.

    >>> truth = CocoFile.with_categories({3: "cat", 5: "dog"})
    >>> image = truth.add_image("a.jpg", (40, 40))
    >>> boxes = [0, 0, 10, 10], [20, 0, 10, 10]
    >>> truth.add_annotations({"image_id": image, "category_id": c, "bbox": b} for c, b in zip((3, 5), boxes))
    >>> rows = [{"image_id": image, "category_id": 1, "bbox": b, "score": 1.0} for b in boxes]
    >>> [row["category_id"] for row in name_clusters(truth, rows, torch.eye(2))[0]]
    [3, 5]
    """
    if features.ndim != 2 or len(features) != len(rows) or not bool(torch.isfinite(features).all()):
        raise InputError(f"expected finite features (N, D) of {len(rows)} predictions, got {tuple(features.shape)}")
    classes = [row["id"] for row in truth.categories]
    labels = cluster_features(features, len(classes), seed)
    true = find_true_classes(truth, rows)
    owners = match_clusters(labels, true, classes)
    named = [{**row, "category_id": owners[label]} for row, label in zip(rows, labels.tolist(), strict=True)]
    names = {row["id"]: str(row["name"]) for row in truth.categories}
    fits = sum(row["category_id"] == own for row, own in zip(named, true, strict=True))
    sizes = tuple(np.bincount(labels, minlength=len(classes)).tolist())
    overlapping = sum(own is not None for own in true)
    return named, ClusterNames(tuple(names[owners[k]] for k in range(len(classes))), sizes, overlapping, fits, seed)


def cluster_features(features: Tensor, count: int, seed: int = 0) -> IntArray:
    """K-means of unit ``features`` (N, D) from k-means++ seeds; (N,) labels in 0 .. count - 1."""
    if not len(features):
        return np.zeros(0, np.int64)
    unit = F.normalize(features.float().cpu(), dim=1)
    seeds = choose_plusplus_seeds(unit, count, torch.Generator().manual_seed(seed))
    return run_kmeans(unit, unit[seeds]).numpy().astype(np.int64)


def find_true_classes(truth: CocoFile, rows: Sequence[Row]) -> list[int | None]:
    """The category of the true box that each prediction overlaps most, None where it overlaps none; crowds are left out."""
    true, sizes = group_by_image([row for row in truth.annotations if not row.get("iscrowd")]), read_image_sizes(truth)
    found: list[int | None] = [None] * len(rows)
    places: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row["image_id"], []).append(place)
    for image_id, own in places.items():
        if not (others := true[image_id]):
            continue
        ious = compute_overlaps([rows[k] for k in own], others, sizes[image_id], "bbox")
        for place, values in zip(own, ious, strict=True):
            best = int(np.argmax(values))
            found[place] = others[best]["category_id"] if values[best] > 0 else None
    return found


def match_clusters(labels: IntArray, true: Sequence[int | None], classes: Sequence[int]) -> dict[int, int]:
    """The category of each of as many clusters as ``classes``, one to one, so that most predictions have their true one.

    >>> match_clusters(np.array([0, 0, 1, 1, 1]), [7, 7, 7, 9, None], [7, 9])
    {0: 7, 1: 9}
    """
    places: Mapping[int, int] = {category: k for k, category in enumerate(classes)}
    counts: npt.NDArray[np.int64] = np.zeros((len(classes), len(classes)), np.int64)
    for label, category in zip(labels.tolist(), true, strict=True):
        if category is not None:
            counts[label, places[category]] += 1
    clusters, columns = linear_sum_assignment(counts, maximize=True)
    return {int(cluster): classes[int(column)] for cluster, column in zip(clusters, columns, strict=True)}
