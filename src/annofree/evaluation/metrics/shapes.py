"""Choice of masks or boxes for scoring, and their overlaps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from annofree.errors import InputError, build_unknown_error
from annofree.evaluation.metrics.predictions import Row, read_mask_rle
from annofree.formats.coco import CocoFile
from annofree.ops.rle import compute_box_ious, compute_rle_box, compute_rle_ious

__all__ = ["IOU_TYPES", "IouType", "Overlaps", "choose_iou_type", "compute_box", "compute_overlaps"]

IouType = Literal["segm", "bbox"]
"""Masks or boxes, by COCO's words."""

IOU_TYPES: tuple[IouType, ...] = ("segm", "bbox")

Overlaps = npt.NDArray[np.float64]

Size = tuple[int, int]

_SHOWN = 3  # annotations without a mask are named


def compute_box(row: Row, size: Size) -> list[float]:
    """Return the box of an annotation on an image of ``size`` (H, W), x y w h in px; computed from its mask if missing.

    Raises InputError where there is neither, and for a box that is not four finite numbers with sides of 0 or more.

    >>> compute_box({"segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]]}, (4, 6))
    [1.0, 1.0, 2.0, 2.0]
    """
    box = row.get("bbox")
    if not box and not row.get("segmentation"):
        raise InputError(f"expected a box or a mask in every annotation, neither in one of image {row.get('image_id')}")
    if not box:
        x0, y0, x1, y1 = compute_rle_box(read_mask_rle(row, size))
        return [x0, y0, x1 - x0, y1 - y0]
    numbers = [v for v in box if isinstance(v, int | float) and math.isfinite(v)] if isinstance(box, list | tuple) else []
    if len(numbers) != 4 or len(box) != 4 or min(numbers[2:]) < 0:
        raise InputError(f"expected a box as x y w h, finite and w, h >= 0, got {box!r} on image {row.get('image_id')}")
    return [float(v) for v in numbers]


def compute_overlaps(said: Sequence[Row], real: Sequence[Row], size: Size, iou_type: IouType) -> Overlaps:
    """IoU (P, N) of predictions with instances on an image of ``size`` (H, W); for crowds, the part of the prediction."""
    if not said or not real:
        return np.zeros((len(said), len(real)))
    crowds = [int(row.get("iscrowd") or 0) for row in real]
    if iou_type == "segm":
        return compute_rle_ious([read_mask_rle(row, size) for row in said], [read_mask_rle(row, size) for row in real], crowds)
    return compute_box_ious([compute_box(row, size) for row in said], [compute_box(row, size) for row in real], crowds)


def choose_iou_type(truth: CocoFile, rows: Sequence[Row], asked: str | None = None) -> tuple[IouType, str | None]:
    """Choose masks or boxes, and return a note if the choice was automatic.

    Masks, unless the ground truth or the predictions have none at all.  Raises InputError for another word than
    ``segm`` and ``bbox``, and where masks are to be scored but some of a side lack one: how many, and which are the first.

    >>> truth = CocoFile(images=[{"id": 1, "file_name": "a.jpg"}], annotations=[{"image_id": 1, "bbox": [0, 0, 2, 2]}])
    >>> choose_iou_type(truth, [])
    ('bbox', 'the truth has no masks, only boxes: boxes are scored')
    """
    if asked not in (*IOU_TYPES, None):
        raise build_unknown_error("IoU", str(asked), IOU_TYPES)
    sides: dict[str, Sequence[Row]] = {"truth": truth.annotations, "predictions": rows}
    without = {side: [k for k, row in enumerate(own) if not row.get("segmentation")] for side, own in sides.items()}
    bare = [side for side, own in sides.items() if own and len(without[side]) == len(own)]
    if asked == "bbox" or (bare and asked is None):
        for side, own in sides.items():
            _check(side, own, [k for k in without[side] if not own[k].get("bbox")], "a box or a mask", truth)
        has = "has" if bare[:1] == ["truth"] else "have"
        return "bbox", None if asked else f"the {bare[0]} {has} no masks, only boxes: boxes are scored"
    for side, own in sides.items():
        _check(side, own, without[side], "a mask, to score masks,", truth)
    return "segm", None


def _check(side: str, rows: Sequence[Row], lacking: Sequence[int], what: str, truth: CocoFile) -> None:
    """Raise InputError that counts the rows of a side which lack something, and names the first by id or by place."""
    if not lacking:
        return
    names = {image["id"]: str(image.get("file_name", image["id"])) for image in truth.images}
    kind = "annotation" if side == "truth" else "prediction"
    numbers = [(k, rows[k].get("id", k) if side == "truth" else k) for k in lacking[:_SHOWN]]
    first = "; ".join(f"{kind} {number} on {names.get(rows[k]['image_id'], '?')}" for k, number in numbers)
    raise InputError(
        f"expected {what} in every annotation, but {len(lacking):,} of {len(rows):,} in the {side} have none: {first}"
        f"{' ...' if len(lacking) > _SHOWN else ''}; {'score boxes instead (--iou bbox), or ' if 'to score' in what else ''}"
        "add what is missing"
    )
