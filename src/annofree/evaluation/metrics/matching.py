"""How far two answers for one image agree, and how wrong an answer is: instances of one class matched by their masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from annofree.formats.annotations import Annotation
from annofree.ops.rle import compute_box_ious, compute_rle_ious, compute_rle_parts

__all__ = ["compute_error", "compute_ious", "count_changed", "measure_agreement"]

Floats = npt.NDArray[np.float64]


def compute_ious(first: Sequence[Annotation], second: Sequence[Annotation], *, aware: bool = True) -> Floats:
    """Return the mask IoU of every pair, (N, M); 0 for different classes if ``aware``.  Boxes replace missing masks."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    if all(t.rle is not None for t in (*first, *second)):
        found = compute_rle_ious([t.rle for t in first if t.rle], [t.rle for t in second if t.rle])
    else:
        found = compute_box_ious(_boxes(first), _boxes(second))
    return found * np.equal.outer([t.name for t in first], [t.name for t in second]) if aware else found


def _boxes(things: Sequence[Annotation]) -> Floats:
    corners = np.array([t.box for t in things], np.float64)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def measure_agreement(first: Sequence[Annotation], second: Sequence[Annotation]) -> float:
    """Return the agreement of two predictions, in 0 .. 1: the score-weighted IoU of the best one-to-one matching.

    Each matched pair of one class gives its IoU times the sum of its two scores; the sum of these is divided by the sum of
    all scores, so an unmatched instance counts by its score.  Two empty predictions agree.

    >>> dog = Annotation.of_mask("dog", np.ones((2, 2), bool), score=0.5)
    >>> measure_agreement([dog], [dog]), measure_agreement([dog], []), measure_agreement([], [])
    (1.0, 0.0, 1.0)
    """
    weights = [np.array([1.0 if t.score is None else t.score for t in things]) for things in (first, second)]
    total = float(weights[0].sum() + weights[1].sum())
    if not total:
        return 1.0
    values = compute_ious(first, second)
    rows, columns = linear_sum_assignment(values, maximize=True)
    return float((values[rows, columns] * (weights[0][rows] + weights[1][columns])).sum()) / total


def count_changed(first: Sequence[Annotation], second: Sequence[Annotation], at: float = 0.5) -> int:
    """Count the instances of the first prediction without a match of their class in the second at IoU ``at`` or more."""
    values = compute_ious(first, second)
    rows, columns = linear_sum_assignment(values >= at, maximize=True)
    return len(first) - int((values[rows, columns] >= at).sum())


def compute_error(truth: Sequence[Annotation], found: Sequence[Annotation], at: float = 0.5) -> float:
    """Return 1 - F1 of predicted instances, class-aware, at mask IoU ``at``; 0 if there is nothing to find and nothing found.

    Matching is greedy by score, each to the unmatched instance of the highest IoU.  Crowds are ignored: they are not
    to be found, and predictions more than half inside one do not count.

    >>> dog = Annotation.of_mask("dog", np.ones((2, 2), bool), score=0.5)
    >>> compute_error([dog], [dog]), compute_error([dog], []), compute_error([], [dog]), compute_error([], [])
    (0.0, 1.0, 1.0, 0.0)
    """
    solid, crowds = [t for t in truth if not t.crowd], [t for t in truth if t.crowd]
    ordered = sorted(found, key=lambda t: -(1.0 if t.score is None else t.score))
    hits = _hits(compute_ious(ordered, solid), at)
    lost = _within(ordered, crowds)
    counted = sum(hit or not gone for hit, gone in zip(hits, lost, strict=True))
    total = counted + len(solid)
    return 1.0 - 2.0 * sum(hits) / total if total else 0.0


def _hits(values: Floats, at: float) -> list[bool]:
    free = np.ones(values.shape[1], bool)
    hits = []
    for row in values:
        best = int(np.argmax(row * free)) if len(row) else 0
        hit = bool(len(row)) and bool(free[best]) and bool(row[best] >= at)
        if hit:
            free[best] = False
        hits.append(hit)
    return hits


def _within(things: Sequence[Annotation], crowds: Sequence[Annotation]) -> list[bool]:
    """Whether more than half of each instance lies in one crowd of its class."""
    drawn = [c for c in crowds if c.rle is not None]
    if not drawn or not all(t.rle is not None for t in things) or not things:
        return [False] * len(things)
    parts = compute_rle_parts([t.rle for t in things if t.rle], [c.rle for c in drawn if c.rle])
    same = np.equal.outer([t.name for t in things], [c.name for c in drawn])
    most: Floats = np.max(parts * same, axis=1)
    return [value > 0.5 for value in most.tolist()]
