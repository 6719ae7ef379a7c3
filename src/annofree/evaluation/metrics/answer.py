"""Answer quality: precision, recall, F1, duplicates, count error and calibration of the returned predictions.

AP rewards rankings of many guesses; these metrics score the returned predictions.  Answers are matched class by class and
image by image, highest score first, each to the unmatched instance of the highest mask IoU; predictions on a crowd are
ignored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from annofree.evaluation.metrics.errors import assign_instances
from annofree.evaluation.metrics.predictions import Row, group_by_image, match_predictions, read_image_sizes
from annofree.evaluation.metrics.shapes import IouType, Overlaps, compute_overlaps
from annofree.formats.coco import CocoFile
from annofree.structures import BoolArray

__all__ = ["BINS", "AnswerScores", "compute_calibration_error", "evaluate_answer", "match_answers"]

BINS = 10
"""Bins of equal width that a calibration error is counted in."""

_DUPLICATE_IOU, _DUPLICATE_INSIDE = 0.5, 0.8


@dataclass(frozen=True)
class AnswerScores:
    """Answer quality: counts, and fractions in 0 .. 1, None if undefined.

    ``duplicates`` are wrong answers that lie by 0.8 in a right one, or overlap it by an IoU of 0.5, whatever their names.
    ``count_error`` is the mean absolute difference between the number of true and predicted instances, over the pairs of
    an image and a class with any.  ``calibration_error`` is that of the scores as probabilities of being right.

    >>> AnswerScores(n_truth=4, n_answers=3, n_right=2, n_duplicates=1, count_error=0.5, calibration_error=None).f1
    0.5714285714285714
    """

    n_truth: int
    n_answers: int
    n_right: int
    n_duplicates: int
    count_error: float | None
    calibration_error: float | None

    @property
    def precision(self) -> float | None:
        """The fraction of predictions that are correct."""
        return self.n_right / self.n_answers if self.n_answers else None

    @property
    def recall(self) -> float | None:
        """The fraction of true instances that were found."""
        return self.n_right / self.n_truth if self.n_truth else None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of precision and recall."""
        total = self.n_truth + self.n_answers
        return 2 * self.n_right / total if total else None

    @property
    def duplicates(self) -> float | None:
        """The fraction of predictions that are duplicates."""
        return self.n_duplicates / self.n_answers if self.n_answers else None


def evaluate_answer(
    truth: CocoFile,
    predictions: CocoFile | Sequence[Row],
    *,
    iou: float = 0.5,
    iou_type: IouType = "segm",
    min_score: float = 0.0,
    image_ids: Collection[int] | None = None,
) -> AnswerScores:
    """Score predictions as an answer; arguments and errors are those of ``evaluate_instances``.

    >>> truth = CocoFile.with_categories({1: "dog"})
    >>> row = {"image_id": truth.add_image("a.jpg", (40, 40)), "category_id": 1, "bbox": [0, 0, 20, 20]}
    >>> truth.add_annotations([row])
    >>> found = evaluate_answer(truth, [{**row, "score": 0.9}, {**row, "score": 0.8}], iou_type="bbox")
    >>> found.precision, found.recall, found.duplicates, found.count_error
    (0.5, 1.0, 0.5, 1.0)
    """
    sizes = read_image_sizes(truth, image_ids)
    real, said = group_by_image(truth.annotations), group_by_image(match_predictions(truth, predictions))
    n_truth = n_duplicates = 0
    scores, right, differences = list[float](), list[bool](), list[int]()
    for image_id, size in sizes.items():
        answers = sorted((r for r in said[image_id] if r["score"] >= min_score), key=lambda r: -float(r["score"]))
        solid = [row for row in real[image_id] if not row.get("iscrowd", 0)]
        hits, counted = _matched(answers, real[image_id], size, iou, iou_type)
        n_truth += len(solid)
        n_duplicates += _duplicates(answers, hits, counted, size, iou_type)
        scores += [float(answers[i]["score"]) for i in np.flatnonzero(counted).tolist()]
        right += hits[counted].tolist()
        differences += _differences(solid, [answers[i] for i in np.flatnonzero(counted).tolist()])
    count_error = float(np.mean(differences)) if differences else None
    return AnswerScores(
        n_truth,
        len(right),
        sum(right),
        n_duplicates,
        count_error,
        compute_calibration_error(np.array(scores), np.array(right, bool)),
    )


def compute_calibration_error(scores: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], bins: int = BINS) -> float | None:
    """Expected calibration error of scores (N) against correctness (N); None without any, or for scores outside 0 .. 1.

    The mean over bins of equal width, weighted by count, of the difference between mean score and accuracy.
    Guo et al., ICML 2017.

    >>> compute_calibration_error(np.array([0.9, 0.9, 0.1, 0.1]), np.array([True, True, False, False])).__round__(3)
    0.1
    """
    if not len(scores) or scores.min() < 0 or scores.max() > 1:
        return None
    place = np.clip((np.asarray(scores) * bins).astype(int), 0, bins - 1)
    sums = np.bincount(place, weights=np.asarray(scores) - np.asarray(right, float), minlength=bins)
    return float(np.abs(sums).sum() / len(scores))


def match_answers(overlaps: Overlaps, same: BoolArray, crowd: BoolArray, iou: float = 0.5) -> tuple[BoolArray, BoolArray]:
    """Return which predictions are correct, and which count, (P) each: those on a crowd of their class are ignored.

    ``overlaps`` (P, N) are of predictions, highest score first, with instances; ``same`` (P, N) is class equality, ``crowd``
    (N) which instances are crowds.

    >>> match_answers(np.array([[0.9], [0.8]]), np.ones((2, 1), bool), np.zeros(1, bool))
    (array([ True, False]), array([ True,  True]))
    """
    taken = assign_instances(np.where(same, overlaps, -1.0), crowd, iou)
    on_crowd = np.array([k >= 0 and crowd[k] for k in taken], bool)
    return (taken >= 0) & ~on_crowd, ~on_crowd


def _matched(
    answers: Sequence[Row], real: Sequence[Row], size: tuple[int, int], iou: float, iou_type: IouType
) -> tuple[BoolArray, BoolArray]:
    crowd = np.array([bool(row.get("iscrowd", 0)) for row in real], bool)
    same = np.equal.outer([row["category_id"] for row in answers], [row["category_id"] for row in real])
    overlaps = compute_overlaps(answers, real, size, iou_type)
    return match_answers(overlaps, same.reshape(overlaps.shape), crowd, iou)


def _duplicates(
    answers: Sequence[Row],
    hits: BoolArray,
    counted: BoolArray,
    size: tuple[int, int],
    iou_type: IouType,
) -> int:
    right, wrong = ([answers[i] for i in np.flatnonzero(which).tolist()] for which in (hits, ~hits & counted))
    if not right or not wrong:
        return 0
    twice = compute_overlaps(wrong, right, size, iou_type) >= _DUPLICATE_IOU
    inside = compute_overlaps(wrong, [{**row, "iscrowd": 1} for row in right], size, iou_type) >= _DUPLICATE_INSIDE
    return int((twice | inside).any(1).sum())


def _differences(real: Sequence[Row], answers: Sequence[Row]) -> list[int]:
    """Count differences of the classes that occur."""
    true, said = (Counter(row["category_id"] for row in rows) for rows in (real, answers))
    return [abs(true[name] - said[name]) for name in true | said]
