"""AP and F1 from precomputed overlaps, so that changed predictions can be scored without new overlaps.

The numbers equal those of ``evaluate_instances`` and ``evaluate_answer``, as tests verify.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annofree.evaluation.metrics.answer import match_answers
from annofree.evaluation.metrics.errors import assign_at_ious
from annofree.evaluation.metrics.instance import IOUS, RECALLS, Values
from annofree.evaluation.metrics.predictions import Row
from annofree.evaluation.metrics.shapes import IouType, Overlaps, compute_overlaps
from annofree.structures import BoolArray, IntArray

__all__ = ["ImageOverlaps", "compute_ap", "compute_f1"]


@dataclass(frozen=True, eq=False)
class ImageOverlaps:
    """The predictions (P) and the truth (N) of an image: IoU ``overlaps`` (P, N), class ids ``said`` and ``real``, ``crowd``.

    ``source`` (P) is the prediction whose mask or box each has: its own, unless that was changed.

    >>> row = {"category_id": 1, "bbox": [0, 0, 10, 10]}
    >>> seen = ImageOverlaps.of([{**row, "score": 0.5}], [row], (40, 40), "bbox")
    >>> compute_ap([seen]), compute_f1([seen])
    (1.0, 1.0)
    """

    overlaps: Overlaps
    said: IntArray
    scores: Values
    real: IntArray
    crowd: BoolArray
    source: IntArray

    @classmethod
    def of(cls, said: Sequence[Row], real: Sequence[Row], size: tuple[int, int], iou_type: IouType) -> ImageOverlaps:
        """Measure the rows of an image of ``size`` (H, W); raises InputError for masks or boxes that cannot be used."""
        classes = [np.array([row["category_id"] for row in rows], np.int64) for rows in (said, real)]
        scores = np.array([row["score"] for row in said], np.float64)
        crowd = np.array([bool(row.get("iscrowd", 0)) for row in real], bool)
        return cls(compute_overlaps(said, real, size, iou_type), classes[0], scores, classes[1], crowd, np.arange(len(said)))

    @property
    def same(self) -> BoolArray:
        """Class equality, (P, N)."""
        return np.asarray(np.equal.outer(self.said, self.real), bool)


def compute_f1(images: Sequence[ImageOverlaps], iou: float = 0.5) -> float | None:
    """F1 of all predictions as an answer, class-aware, at one IoU; None if undefined."""
    right = total = 0
    for seen in images:
        order = np.argsort(-seen.scores, kind="stable")
        hits, counted = match_answers(seen.overlaps[order], seen.same[order], seen.crowd, iou)
        right += int(hits.sum())
        total += int(counted.sum() + (~seen.crowd).sum())
    return 2 * right / total if total else None


def compute_ap(images: Sequence[ImageOverlaps], max_detections: int = 100) -> float | None:
    """The class-aware AP, the mean over IoU 0.50:0.95 and the classes with truth; None without any but crowds.

    Of equal scores those of the first image come first: to agree with COCO's code, images are in the order of their ids.
    """
    solid = [seen.real[~seen.crowd] for seen in images]
    classes, counts = np.unique(np.concatenate(solid or [np.zeros(0, np.int64)]), return_counts=True)
    if not len(classes):
        return None
    outcomes = [_outcomes(seen, max_detections) for seen in images]
    said, scores, right, wrong = (np.concatenate(column) for column in zip(*outcomes, strict=True))
    aps = []
    for class_, n_truth in zip(classes.tolist(), counts.tolist(), strict=True):
        own = np.flatnonzero(said == class_)
        order = own[np.argsort(-scores[own], kind="stable")]
        aps.append(_ap(right[order], wrong[order], n_truth))
    return float(np.mean(aps))


def _outcomes(seen: ImageOverlaps, limit: int) -> tuple[IntArray, Values, BoolArray, BoolArray]:
    """Class and score of the predictions that count, the surest of an image and class, and where each is right and wrong.

    Right and wrong are (P, T) for the ten IoUs; on a crowd a prediction is neither.
    """
    order = np.argsort(-seen.scores, kind="stable")
    order = order[_rank_in_class(seen.said[order]) < limit]
    taken = assign_at_ious(np.where(seen.same[order], seen.overlaps[order], -1.0), seen.crowd, IOUS).T
    on_crowd = (taken >= 0) & np.append(seen.crowd, False)[taken]
    return seen.said[order], seen.scores[order], (taken >= 0) & ~on_crowd, taken < 0


def _rank_in_class(classes: IntArray) -> IntArray:
    """How many before each (P) are of its class."""
    by_class = np.argsort(classes, kind="stable")
    ordered = classes[by_class]
    ranks = np.empty(len(classes), np.int64)
    ranks[by_class] = np.arange(len(classes)) - np.searchsorted(ordered, ordered)
    return ranks


def _ap(right: BoolArray, wrong: BoolArray, n_truth: int) -> float:
    """The mean precision at COCO's recalls, over ten IoUs, of predictions (P, T), the surest first."""
    hits, alarms = np.cumsum(right, 0), np.cumsum(wrong, 0)
    precision = hits / np.maximum(hits + alarms, 1)
    precision = np.maximum.accumulate(precision[::-1], 0)[::-1]
    padded = np.vstack([precision, np.zeros(len(IOUS))])
    places = [np.searchsorted(column / n_truth, RECALLS) for column in hits.T]
    return float(np.mean([padded[place, t] for t, place in enumerate(places)]))
