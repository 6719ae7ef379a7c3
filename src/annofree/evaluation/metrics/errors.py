"""Error analysis: missed instances and false positives, by kind.

Answers are matched as COCO matches them at one IoU: class by class and image by image, the surest first, each to the free
instance that it overlaps most; what then lies on a crowd is ignored.  The kinds are those of TIDE (Bolya et
al., ECCV 2020); if several apply, the first of ``KINDS`` counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from annofree.evaluation.metrics.limits import check_limit
from annofree.evaluation.metrics.predictions import (
    Row,
    View,
    group_by_image,
    match_predictions,
    read_image_sizes,
    read_mask_rle,
)
from annofree.evaluation.metrics.shapes import IouType, Overlaps, compute_overlaps
from annofree.formats.coco import CocoFile
from annofree.ops.rle import compute_rle_area
from annofree.structures import BoolArray, IntArray

__all__ = ["KINDS", "Kind", "Mistake", "Mistakes", "assign_at_ious", "assign_instances", "find_mistakes"]

Kind = Literal["taken", "class", "location", "both", "nothing"]

KINDS: Mapping[Kind, tuple[str, str]] = {
    "taken": ("found already by a surer answer", "the answer there belongs to another instance"),
    "class": ("another class is there", "called by another name"),
    "location": ("the right class, but overlapping too little", "found, but overlapping too little"),
    "both": ("another class, overlapping too little", "another name, overlapping too little"),
    "nothing": ("nothing true is there", "nothing was said there"),
}
"""What each kind means of a false alarm, and of a miss."""

_NEAR = 0.1  # an overlap below this is none, as TIDE has it


@dataclass(frozen=True, eq=False)
class Mistake:
    """A missed instance (``score`` None) or a false positive: class, image, ``kind`` and ``area`` in px.

    ``row`` is the COCO annotation, ``other`` the one of the other side with the highest ``overlap``; None
    if none is near.
    """

    name: str
    kind: Kind
    image_id: int
    row: Row
    area: float
    score: float | None
    other: Row | None
    overlap: float

    @property
    def words(self) -> str:
        """Description of the kind."""
        return KINDS[self.kind][self.score is None]


@dataclass(frozen=True)
class Mistakes:
    """All ``misses``, largest first, all ``false_alarms``, highest score first, and the number of ``right`` predictions."""

    misses: tuple[Mistake, ...]
    false_alarms: tuple[Mistake, ...]
    right: int

    def count_kinds(self) -> dict[Kind, tuple[int, int]]:
        """Numbers of false positives and misses by kind."""
        alarms, misses = (Counter(m.kind for m in side) for side in (self.false_alarms, self.misses))
        return {kind: (alarms[kind], misses[kind]) for kind in KINDS}


def find_mistakes(
    truth: CocoFile,
    predictions: CocoFile | Sequence[Row],
    *,
    iou: float = 0.5,
    iou_type: IouType = "segm",
    view: View = "class-aware",
    min_score: float = 0.0,
    image_ids: Collection[int] | None = None,
    max_detections: int = 100,
) -> Mistakes:
    """Find misses and false positives at one IoU, for predictions of at least ``min_score``.

    The ``max_detections`` best predictions per image and class count.  Arguments are those of ``evaluate_instances``, and so
    are the errors.

    >>> truth = CocoFile.with_categories({1: "dog", 2: "cat"})
    >>> row = {"image_id": truth.add_image("a.jpg", (40, 40)), "category_id": 1, "bbox": [0, 0, 20, 20]}
    >>> truth.add_annotations([row])
    >>> found = find_mistakes(truth, [{**row, "category_id": 2, "score": 0.9}], iou_type="bbox")
    >>> [(m.name, m.words) for m in found.false_alarms + found.misses]
    [('cat', 'another class is there'), ('dog', 'called by another name')]
    """
    limit = check_limit(max_detections)
    matched = [row for row in match_predictions(truth, predictions, view) if row["score"] >= min_score]
    sizes = read_image_sizes(truth, image_ids)
    real, said = group_by_image(truth.annotations), group_by_image(matched)
    names = {row["id"]: str(row["name"]) for row in truth.categories}
    misses, alarms, right = [], [], 0
    for image_id, size in sizes.items():
        pair = _Pair.of(real[image_id], said[image_id], size, iou_type, view == "class-aware", limit)
        answers = pair.match(iou)
        right += int((answers >= 0).sum() - pair.crowd[answers[answers >= 0]].sum())
        misses += [pair.build_miss(n, names, iou) for n in np.flatnonzero(~pair.crowd).tolist() if n not in answers]
        alarms += [pair.build_false_alarm(p, names, iou) for p in np.flatnonzero(answers < 0).tolist()]
    misses.sort(key=lambda m: -m.area)
    alarms.sort(key=lambda m: -(m.score or 0.0))
    return Mistakes(tuple(misses), tuple(alarms), right)


def assign_instances(overlaps: Overlaps, crowd: BoolArray, iou: float) -> IntArray:
    """Assign predictions (P), highest score first, to instances (N) by overlaps (P, N); -1 for none; crowds match repeatedly.

    Ties go to the last instance, as in the COCO API.

    >>> assign_instances(np.array([[0.9, 0.6], [0.8, 0.1]]), np.zeros(2, bool), 0.5)
    array([ 0, -1])
    """
    found: IntArray = assign_at_ious(overlaps, crowd, np.array([iou]))[0]
    return found


def assign_at_ious(overlaps: Overlaps, crowd: BoolArray, ious: Overlaps) -> IntArray:
    """Assign independently at several IoUs (T); returns (T, P).

    >>> assign_at_ious(np.array([[0.9, 0.6], [0.8, 0.1]]), np.zeros(2, bool), np.array([0.5, 0.95])).tolist()
    [[0, -1], [-1, -1]]
    """
    bars = np.minimum(ious, 1 - 1e-10)[:, None]
    answers, free = np.full((len(bars), len(overlaps)), -1), np.tile(~crowd, (len(bars), 1))
    for p in np.flatnonzero((overlaps >= bars.min()).any(1)):  # the others reach nothing
        reached = overlaps[p] >= bars
        open_ = reached & free
        fits = np.where(open_.any(1, keepdims=True), open_, reached & crowd)
        found = np.flatnonzero(fits.any(1))
        taken = len(crowd) - 1 - np.where(fits[found], overlaps[p], -1.0)[:, ::-1].argmax(1)
        answers[found, p] = taken
        free[found, taken] = False
    return answers


@dataclass(frozen=True, eq=False)
class _Pair:
    """The two sides of one image: answers, the surest first, instances, their overlaps and whether classes agree (P, N)."""

    said: list[Row]
    real: list[Row]
    crowd: BoolArray
    overlaps: Overlaps
    same: BoolArray
    size: tuple[int, int]

    @classmethod
    def of(cls, real: list[Row], said: list[Row], size: tuple[int, int], iou_type: IouType, aware: bool, limit: int) -> _Pair:
        best: list[Row] = []
        counts: Counter[object] = Counter()
        for row in sorted(said, key=lambda row: -float(row["score"])):
            counts[key := row["category_id"] if aware else 1] += 1
            best += [row] if counts[key] <= limit else []
        same = np.equal.outer([r["category_id"] for r in best], [r["category_id"] for r in real]).astype(bool)
        crowd = np.array([bool(row.get("iscrowd", 0)) for row in real], bool)
        overlaps = compute_overlaps(best, real, size, iou_type)
        return cls(best, real, crowd, overlaps, same.reshape(overlaps.shape) if aware else np.ones(overlaps.shape, bool), size)

    def match(self, iou: float) -> IntArray:
        """The instance of each prediction, -1 for none; predictions of other classes do not match."""
        return assign_instances(np.where(self.same, self.overlaps, -1.0), self.crowd, iou)

    def build_miss(self, n: int, names: Mapping[int, str], iou: float) -> Mistake:
        return self._mistake(self.real[n], self.said, self.overlaps[:, n], self.same[:, n], names, iou, None)

    def build_false_alarm(self, p: int, names: Mapping[int, str], iou: float) -> Mistake:
        overlaps = np.where(self.crowd, 0.0, self.overlaps[p])
        return self._mistake(self.said[p], self.real, overlaps, self.same[p], names, iou, float(self.said[p]["score"]))

    def _mistake(
        self,
        row: Row,
        others: Sequence[Row],
        overlaps: Overlaps,
        same: BoolArray,
        names: Mapping[int, str],
        iou: float,
        score: float | None,
    ) -> Mistake:
        kind, of = _kind(overlaps, same, iou)
        other = None if of is None else others[of]
        near = 0.0 if of is None else float(overlaps[of])
        name = names.get(row["category_id"], "object")
        return Mistake(name, kind, row["image_id"], row, _area(row, self.size), score, other, near)


def _kind(overlaps: Overlaps, same: BoolArray, iou: float) -> tuple[Kind, int | None]:
    """The kind of an error from its overlaps with the other side (N), and the index it refers to."""
    kinds: tuple[tuple[Kind, BoolArray], ...] = (
        ("taken", same & (overlaps >= iou)),
        ("class", ~same & (overlaps >= iou)),
        ("location", same & (overlaps >= _NEAR)),
        ("both", ~same & (overlaps >= _NEAR)),
    )
    for kind, fits in kinds:
        if fits.any():
            return kind, int(np.where(fits, overlaps, -1.0).argmax())
    return "nothing", None


def _area(row: Row, size: tuple[int, int]) -> float:
    if row.get("area") is not None:
        return float(row["area"])
    return float(compute_rle_area(read_mask_rle(row, size)) if row.get("segmentation") else row["bbox"][2] * row["bbox"][3])
