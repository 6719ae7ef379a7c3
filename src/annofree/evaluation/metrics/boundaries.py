"""Where edges lie: how many of the edges of clusters, or of masks, are edges of true instances, and how many of those are met.

    edge       a pixel whose right or lower neighbor belongs to another cluster, or to a mask that it does not belong to
    met        an edge with one of the other kind within a few px, by the distance of pixel centers
    precision  the part of the said edges that are met by true ones, recall the part of the true edges that are met by said ones

Zip clusters features because their clusters end where objects end; this measures just that, before any name or mask.  Edges of
all images are counted together.  The image's own border is no edge; pixels of crowds are left out on both sides.  H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from annofree.errors import InputError
from annofree.evaluation.metrics.predictions import group_by_image, read_image_sizes, read_mask_rle
from annofree.formats.coco import CocoFile
from annofree.ops.rle import decode_rle
from annofree.structures import RLE, BoolArray

__all__ = [
    "TOLERANCES",
    "BoundaryScorer",
    "BoundaryScores",
    "evaluate_boundaries",
    "mark_label_edges",
    "mark_mask_edges",
    "mark_true_edges",
]

TOLERANCES = (1.0, 2.0, 3.0)
"""Px within which an edge is met."""


@dataclass(frozen=True)
class BoundaryScores:
    """At one ``tolerance`` in px: fractions in 0 .. 1, None where there is nothing to count."""

    tolerance: float
    precision: float | None
    recall: float | None

    @property
    def f(self) -> float | None:
        """The harmonic mean of both, 0 where both are 0, None where one is None.

        >>> BoundaryScores(1, precision=0.5, recall=1.0).f
        0.6666666666666666
        """
        if self.precision is None or self.recall is None:
            return None
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def mark_label_edges(labels: npt.NDArray[Any]) -> BoolArray:
    """The edges (H, W) between the regions of a map (H, W) of numbers, or of a mask.

    >>> mark_label_edges(np.array([[1, 1, 2], [1, 1, 2]])).astype(int).tolist()
    [[0, 1, 0], [0, 1, 0]]
    """
    edges = np.zeros(labels.shape, bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges


def mark_mask_edges(rles: Sequence[RLE], size: tuple[int, int]) -> BoolArray:
    """The edges (H, W) of all of some masks, on an image of ``size`` (H, W); masks may overlap."""
    edges = np.zeros(size, bool)
    for rle in rles:
        edges |= mark_label_edges(decode_rle(rle))
    return edges


def mark_true_edges(truth: CocoFile) -> dict[int, tuple[BoolArray, BoolArray]]:
    """The edges (H, W) of the instances of each image, by its id, and its crowds (H, W), where no edge counts.

    Raises InputError for annotations without a mask, and for masks of another size than their image.
    """
    rows, found = group_by_image(truth.annotations), {}
    for image_id, size in read_image_sizes(truth).items():
        kinds: list[list[RLE]] = [[], []]
        for row in rows[image_id]:
            kinds[bool(row.get("iscrowd"))].append(read_mask_rle(row, size))
        crowds = np.zeros(size, bool)
        for rle in kinds[1]:
            crowds |= decode_rle(rle)
        found[image_id] = mark_mask_edges(kinds[0], size), crowds
    return found


class BoundaryScorer:
    """Counts edges of image after image, at some ``tolerances`` in px; raises InputError for a negative one."""

    def __init__(self, tolerances: Sequence[float] = TOLERANCES) -> None:
        if not tolerances or min(tolerances) < 0:
            raise InputError(f"expected tolerances of at least 0 px, got {list(tolerances)}")
        self.tolerances = tuple(tolerances)
        self._met = np.zeros((len(self.tolerances), 2), np.int64)  # said ones, true ones
        self._all = np.zeros(2, np.int64)

    def add(self, true: BoolArray, said: BoolArray, ignored: BoolArray | None = None) -> None:
        """Count the edges of an image; all three are (H, W).  Raises InputError where they are not of one size."""
        sizes = {a.shape for a in (true, said, ignored) if a is not None}
        if len(sizes) > 1:
            raise InputError(f"expected edges of one size (H, W), got {' and '.join(map(str, sorted(sizes)))}")
        if ignored is not None:
            true, said = true & ~ignored, said & ~ignored
        for k, (own, other) in enumerate(((said, true), (true, said))):
            self._all[k] += int(own.sum())
            if own.any() and other.any():
                distances = distance_transform_edt(~other)[own]
                self._met[:, k] += [int((distances <= tolerance).sum()) for tolerance in self.tolerances]

    def compute_scores(self) -> tuple[BoundaryScores, ...]:
        """Precision and recall of all that was counted, one a tolerance."""
        shares = [[int(m) / int(n) if n else None for m, n in zip(row, self._all, strict=True)] for row in self._met]
        return tuple(BoundaryScores(t, *row) for t, row in zip(self.tolerances, shares, strict=True))


def evaluate_boundaries(
    truth: CocoFile, said: Iterable[tuple[int, BoolArray]], tolerances: Sequence[float] = TOLERANCES
) -> tuple[BoundaryScores, ...]:
    """Score the edges (H, W) said of some images, by their ids in the truth, at some tolerances in px.

    ``mark_label_edges`` makes edges of clusters, ``mark_mask_edges`` of masks.  Images that nothing is said of do not count.
    Raises InputError for an image that the truth does not have, and for edges of another size than the image.

    >>> truth = CocoFile.with_categories({1: "dog"})
    >>> image_id = truth.add_image("a.jpg", (20, 40))
    >>> square = [[0, 0, 20, 0, 20, 20, 0, 20]]
    >>> truth.add_annotations([{"image_id": image_id, "category_id": 1, "segmentation": square}])
    >>> halves = np.repeat([[1, 2]], [22, 18], axis=1).repeat(20, axis=0)  # the true edge is at 20 px
    >>> [score.f for score in evaluate_boundaries(truth, [(image_id, mark_label_edges(halves))])]
    [0.0, 1.0, 1.0]
    """
    edges, scorer = mark_true_edges(truth), BoundaryScorer(tolerances)
    for image_id, own in said:
        if image_id not in edges:
            raise InputError(f"expected the id of an image of the truth, got {image_id}; it has {len(edges)} images")
        true, crowds = edges[image_id]
        scorer.add(true, own, crowds)
    return scorer.compute_scores()
