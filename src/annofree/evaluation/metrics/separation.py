"""The separation rate: of neighbors of one class that touch, how many pairs come out as two.

AP hardly changes when two adjacent dogs are merged into one; this metric measures just that.

    pair       two true instances of one image and class, neither a crowd, whose masks come within 2 px of each other:
               one of them, grown by 2 px in all eight directions, meets the other (at most one free pixel between)
    fits       a prediction fits an instance when their masks have IoU >= 0.5 and it has the instance's class (any class
               in the class-agnostic view); only the 100 best scored predictions of an image take part
    separated  one prediction fits the first, another fits the second, and each overlaps its own more than the other

Where boxes are scored, a pair is two boxes less than 2 px apart, and IoU is that of boxes.

The last condition is what makes it one to one: a blob over two twins of one size has IoU 0.5 with both, and two copies
of that blob would otherwise pass for a separation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation

from annofree.evaluation.metrics.predictions import (
    Row,
    View,
    group_by_image,
    match_predictions,
    read_image_sizes,
    read_mask_rle,
)
from annofree.evaluation.metrics.shapes import IouType, compute_box, compute_overlaps
from annofree.formats.coco import CocoFile
from annofree.ops.rle import compute_rle_boxes, decode_rle
from annofree.structures import RLE

__all__ = ["Separation", "evaluate_separation"]

_REACH = 2
_FITS = 0.5
_MAX_PREDICTIONS = 100


@dataclass(frozen=True)
class Separation:
    """Numbers of touching ``pairs`` and of ``separated`` ones.

    >>> Separation(pairs=4, separated=3).rate
    0.75
    """

    pairs: int
    separated: int

    @property
    def rate(self) -> float | None:
        """Separated pairs as a fraction in 0 .. 1 of all, None when there are no pairs."""
        return self.separated / self.pairs if self.pairs else None


def evaluate_separation(
    truth: CocoFile,
    predictions: CocoFile | Sequence[Row],
    *,
    view: View = "class-aware",
    iou_type: IouType = "segm",
    min_score: float = 0.0,
    image_ids: Collection[int] | None = None,
) -> Separation:
    """Count touching same-class pairs in the ground truth, and those separated by the predictions.

    A CocoFile of predictions is matched by image and class names, a sequence of rows has the truth's ids already (see
    ``match_predictions``, whose errors it raises).  Predictions below ``min_score`` are left out.  Pairs are of one class
    in either view; the class-agnostic view only lets predictions of any class separate them.  ``image_ids`` are the
    truth's; None is all of them.

    Raises InputError for ids that the truth does not have, for annotations without a mask where masks are scored, and for
    masks of another size than their image.

    >>> truth = CocoFile.with_categories({1: "dog"})
    >>> image_id = truth.add_image("a.jpg", (20, 40))
    >>> squares = [[[0, 0, 15, 0, 15, 15, 0, 15]], [[16, 0, 31, 0, 31, 15, 16, 15]]]
    >>> truth.add_annotations([{"image_id": image_id, "category_id": 1, "segmentation": s} for s in squares])
    >>> evaluate_separation(truth, [{**row, "score": 0.9} for row in truth.annotations])
    Separation(pairs=1, separated=1)
    """
    sizes = read_image_sizes(truth, image_ids)
    said = group_by_image([row for row in match_predictions(truth, predictions, view) if row["score"] >= min_score])
    total = separated = 0
    for image_id, real in group_by_image(_solid(truth, sizes)).items():
        pairs = list(_touching_pairs(real, sizes[image_id], iou_type))
        fits = _overlaps(real, said[image_id], sizes[image_id], view, iou_type) if pairs else np.zeros((0, 0))
        total += len(pairs)
        separated += sum(_separated(fits[:, a], fits[:, b]) for a, b in pairs)
    return Separation(total, separated)


def _solid(truth: CocoFile, image_ids: Collection[int]) -> list[Row]:
    return [row for row in truth.annotations if row["image_id"] in image_ids and not row.get("iscrowd", 0)]


def _touching_pairs(rows: Sequence[Row], size: tuple[int, int], iou_type: IouType) -> Iterator[tuple[int, int]]:
    """Yield index pairs of rows of one class whose masks, or boxes, come within reach."""
    masks = [read_mask_rle(row, size) for row in rows] if iou_type == "segm" else []
    boxes = compute_rle_boxes(masks).astype(np.float64) if masks else _corners([compute_box(row, size) for row in rows])
    for a, b in combinations(range(len(rows)), 2):
        possible = rows[a]["category_id"] == rows[b]["category_id"] and _boxes_near(boxes[a], boxes[b])
        if possible and (not masks or _masks_near(masks[a], masks[b], boxes[a])):
            yield a, b


def _corners(boxes: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    """Boxes as x0 y0 x1 y1 (N, 4), given as x y w h."""
    xywh = np.array(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)


def _boxes_near(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> bool:
    """Whether b (x0 y0 x1 y1 in px) meets a grown by the reach: for whole pixels, two apart means a gap of one."""
    return bool(np.all(b[:2] < a[2:] + _REACH) and np.all(a[:2] < b[2:] + _REACH))


def _masks_near(a: RLE, b: RLE, box: npt.NDArray[np.float64]) -> bool:
    """Whether mask a, of the given box, grown by the reach meets mask b; only a's surroundings are looked at."""
    x0, y0, x1, y1 = (int(v) for v in box)
    window = slice(max(0, y0 - _REACH), y1 + _REACH), slice(max(0, x0 - _REACH), x1 + _REACH)
    first, second = (decode_rle(rle)[window] for rle in (a, b))
    grown = binary_dilation(first, np.ones((2 * _REACH + 1, 2 * _REACH + 1), bool))
    return bool(np.any(grown & second))


def _overlaps(
    real: Sequence[Row], said: Sequence[Row], size: tuple[int, int], view: View, iou_type: IouType
) -> npt.NDArray[np.float64]:
    """IoU (P, N) of the best scored predictions with the instances, 0 where the class differs."""
    best = sorted(said, key=lambda row: -float(row["score"]))[:_MAX_PREDICTIONS]
    overlaps = compute_overlaps(best, real, size, iou_type)
    if view == "class-agnostic" or not best:
        return overlaps
    same = np.equal.outer([row["category_id"] for row in best], [row["category_id"] for row in real])
    return overlaps * same


def _separated(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> bool:
    """Whether predictions with these overlaps (P) separate the two instances."""
    return bool(np.any((first >= _FITS) & (first > second)) and np.any((second >= _FITS) & (second > first)))
