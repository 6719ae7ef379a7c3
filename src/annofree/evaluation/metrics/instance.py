"""AP and AR of instances, as COCO defines them: IoU 0.50:0.05:0.95, 101 recall points, maxDets 1, 10 and 100 or another.

faster-coco-eval counts; the tests hold all twelve numbers against pycocotools.

Conventions: numbers are fractions in 0 .. 1, and None without ground truth.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster

from annofree.errors import InputError, build_unknown_error
from annofree.evaluation.metrics.limits import check_limit, list_limits
from annofree.evaluation.metrics.predictions import Row, View, match_predictions, read_image_sizes, read_mask_rle
from annofree.evaluation.metrics.shapes import IouType, compute_box
from annofree.formats.coco import CocoFile
from annofree.ops.rle import compute_rle_area
from annofree.structures import IntArray

__all__ = ["IOUS", "RECALLS", "Counted", "InstanceScores", "IouType", "count_instances", "evaluate_instances"]

Values = npt.NDArray[np.float64]
Sizes = dict[int, tuple[int, int]]

IOUS: Values = np.linspace(0.5, 0.95, 10)
"""The IoUs (T) that a prediction has to reach."""

RECALLS: Values = np.linspace(0.0, 1.0, 101)
"""The recalls (R) at which precision is read."""

_IOU_50, _IOU_75 = 0, 5
_SIZES = ("all", "small", "medium", "large")


@dataclass(frozen=True)
class InstanceScores:
    """The twelve COCO metrics, fractions in 0 .. 1 or None, and the numbers of instances.

    ``ap`` is the mean over IoU 0.50:0.95, ``ap50`` and ``ap75`` at one IoU; small is below 32² px, large above 96² px;
    ``ar1`` and ``ar10`` allow that many detections per image and class, ``ar`` and all others ``max_detections``; None too for
    a limit beyond that.  ``n_truth`` counts instances without crowds; ``n_predictions`` counts all in the scored images,
    before the cut.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar1: float | None
    ar10: float | None
    ar: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None
    n_images: int
    n_truth: int
    n_predictions: int
    max_detections: int = 100

    @property
    def ar100(self) -> float | None:
        """The average recall at COCO's own limit of 100, None where another was set."""
        return self.ar if self.max_detections == 100 else None


_NUMBERS = tuple(field.name for field in fields(InstanceScores))[:12]


@dataclass(frozen=True, eq=False)
class Counted:
    """Raw results of the COCO protocol before averaging: T IoUs, R recalls, K classes, A sizes, M limits of detections.

    ``names`` (K) in the order of their ids; ``precision`` (T, R, K, A, M) and ``recall`` (T, K, A, M) are -1 without
    ground truth.  Sizes are all, small, medium, large; ``limits`` (M) are rising.  ``n_truth`` (K) is without crowds.
    """

    names: tuple[str, ...]
    precision: Values
    recall: Values
    n_images: int
    n_truth: IntArray
    n_predictions: IntArray
    limits: tuple[int, ...] = list_limits(100)

    def compute_scores(self, names: Collection[str] | None = None) -> InstanceScores:
        """Average over all or the named classes; raises InputError for an unknown class."""
        for name in names or ():
            if name not in self.names:
                raise build_unknown_error("class", name, self.names)
        chosen = np.array([names is None or name in names for name in self.names], bool)
        ap, ar = self.precision[:, :, chosen], self.recall[:, chosen]
        numbers = [_mean(ap[..., 0, -1]), *(_mean(ap[i, :, :, 0, -1]) for i in (_IOU_50, _IOU_75))]
        numbers += [_mean(ap[..., size, -1]) for size in range(1, len(_SIZES))]
        at = {limit: _mean(ar[..., 0, place]) for place, limit in enumerate(self.limits)}
        numbers += [at.get(1), at.get(10), at[self.limits[-1]]]
        numbers += [_mean(ar[..., size, -1]) for size in range(1, len(_SIZES))]
        n_truth, n_predictions = (int(counts[chosen].sum()) for counts in (self.n_truth, self.n_predictions))
        named = dict(zip(_NUMBERS, numbers, strict=True))
        return InstanceScores(
            **named,
            n_images=self.n_images,
            n_truth=n_truth,
            n_predictions=n_predictions,
            max_detections=self.limits[-1],
        )

    def score_classes(self) -> dict[str, InstanceScores]:
        """Return the scores of each class with ground truth or predictions, by name."""
        any_ = self.n_truth + self.n_predictions > 0
        return {name: self.compute_scores([name]) for name, counts in zip(self.names, any_, strict=True) if counts}


def _mean(values: Values) -> float | None:
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else None


def evaluate_instances(
    truth: CocoFile,
    predictions: CocoFile | Sequence[Row],
    *,
    view: View = "class-aware",
    iou_type: IouType = "segm",
    image_ids: Collection[int] | None = None,
    max_detections: int = 100,
) -> InstanceScores:
    """Evaluate instances by the COCO protocol.

    A CocoFile of predictions is matched by image and class names, a sequence of rows has the truth's ids already (see
    ``match_predictions``, whose errors it raises).  ``image_ids`` are the truth's; None is all of them.

    class-aware: AP is the mean over the classes that the truth has instances of, asked for or not.
    class-agnostic: all annotations and predictions become one class, crowds stay crowds; so "100 detections" is 100 per
    image, and names play no part.  Of an image and class the ``max_detections`` surest count, of equally sure ones the first.

    Sizes follow the official code: ground truth by its ``area``, predictions by their mask ("segm", as
    detectron2 and CutLER do by removing the boxes) or its box ("bbox").  Missing areas and boxes are computed
    from the mask.  Inputs are not modified.

    Raises InputError for ids that the truth does not have, masks that are missing, masks of another size, boxes that are
    none, and a limit that ``check_limit`` refuses.

    >>> truth = CocoFile.with_categories({1: "dog"})
    >>> row = {"image_id": truth.add_image("a.jpg", (40, 40)), "category_id": 1, "bbox": [0, 0, 20, 20]}
    >>> truth.add_annotations([row])
    >>> evaluate_instances(truth, [{**row, "score": 0.9}], iou_type="bbox").ap50
    1.0
    """
    counted = count_instances(
        truth, predictions, view=view, iou_type=iou_type, image_ids=image_ids, max_detections=max_detections
    )
    return counted.compute_scores()


def count_instances(
    truth: CocoFile,
    predictions: CocoFile | Sequence[Row],
    *,
    view: View = "class-aware",
    iou_type: IouType = "segm",
    image_ids: Collection[int] | None = None,
    max_detections: int = 100,
) -> Counted:
    """Run the evaluation once, for scores of all, some or single classes; arguments and errors of ``evaluate_instances``.

    >>> truth = CocoFile.with_categories({1: "dog", 2: "cat"})
    >>> row = {"image_id": truth.add_image("a.jpg", (40, 40)), "category_id": 1, "bbox": [0, 0, 20, 20]}
    >>> truth.add_annotations([row, {**row, "category_id": 2}])
    >>> counted = count_instances(truth, [{**row, "score": 0.9}], iou_type="bbox")
    >>> counted.compute_scores().ap50, counted.compute_scores(["dog"]).ap50
    (0.5, 1.0)
    """
    limits = list_limits(check_limit(max_detections))
    matched = match_predictions(truth, predictions, view)
    sizes = read_image_sizes(truth, image_ids)
    real = [_truth_row(row, i, sizes, view, iou_type) for i, row in enumerate(truth.annotations, 1) if row["image_id"] in sizes]
    said = [_prediction_row(row, i, sizes, view, iou_type) for i, row in enumerate(matched, 1) if row["image_id"] in sizes]
    rows = truth.categories if view == "class-aware" else [{"id": 1, "name": "object"}]
    categories = sorted(rows, key=lambda row: row["id"])
    images = [image for image in truth.images if image["id"] in sizes]
    solid = [row for row in real if not row["iscrowd"]]
    precision, recall = _counts(images, categories, real if solid else [], said, iou_type, limits)
    truths, answers = (_per_class(rows, categories) for rows in (solid, said))
    return Counted(tuple(str(row["name"]) for row in categories), precision, recall, len(images), truths, answers, limits)


def _per_class(rows: Sequence[Row], categories: Sequence[Row]) -> IntArray:
    """Number of rows per category, (K)."""
    place = {row["id"]: k for k, row in enumerate(categories)}
    return np.bincount([place[row["category_id"]] for row in rows], minlength=len(categories)).astype(np.int64)


def _truth_row(row: Row, number: int, sizes: Sizes, view: View, iou_type: IouType) -> dict[str, Any]:
    ours = _engine_row(row, number, sizes, view, iou_type)
    area = ours["area"] if row.get("area") is None else float(row["area"])
    return {**ours, "area": area, "iscrowd": int(row.get("iscrowd") or 0)}


def _prediction_row(row: Row, number: int, sizes: Sizes, view: View, iou_type: IouType) -> dict[str, Any]:
    return {**_engine_row(row, number, sizes, view, iou_type), "iscrowd": 0, "score": float(row["score"])}


def _engine_row(row: Row, number: int, sizes: Sizes, view: View, iou_type: IouType) -> dict[str, Any]:
    """One annotation with only the fields the engine reads, numbered from 1 because id 0 means unmatched."""
    ours: dict[str, Any] = {"id": number, "image_id": row["image_id"]}
    ours["category_id"] = 1 if view == "class-agnostic" else row["category_id"]
    if iou_type == "segm":
        mask = read_mask_rle(row, sizes[row["image_id"]])
        return {**ours, "segmentation": mask, "area": float(compute_rle_area(mask))}
    box = compute_box(row, sizes[row["image_id"]])
    return {**ours, "bbox": box, "area": box[2] * box[3]}


def _counts(
    images: list[dict[str, Any]],
    categories: list[dict[str, Any]],
    truth: list[dict[str, Any]],
    predictions: list[dict[str, Any]],
    iou_type: IouType,
    limits: Sequence[int],
) -> tuple[Values, Values]:
    """Precision (T, R, K, A, M) and recall (T, K, A, M) by the engine, which is skipped without ground truth."""
    kinds = len(categories), len(_SIZES), len(limits)
    if not truth:
        return np.full((len(IOUS), len(RECALLS), *kinds), -1.0), np.full((len(IOUS), *kinds), -1.0)
    sides = [COCO({"images": images, "categories": categories, "annotations": rows}) for rows in (truth, predictions)]
    engine = COCOeval_faster(*sides, iou_type)
    engine.params.maxDets = list(limits)
    try:
        engine.evaluate()
    except ValueError as problem:  # run lengths as text are read there, and nowhere before
        raise InputError(
            f"expected masks as run lengths that the COCO API can read, got some that it cannot: {problem}"
        ) from None
    engine.accumulate()
    return np.asarray(engine.eval["precision"], np.float64), np.asarray(engine.eval["recall"], np.float64)
