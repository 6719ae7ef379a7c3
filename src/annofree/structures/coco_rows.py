"""Detections as COCO's annotations, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from annofree.errors import InputError
from annofree.ops.rle import RLE, compress_counts, compute_rle_boxes, fill_polygons, to_json_rle
from annofree.structures.arrays import FloatArray, IntArray, check_size, to_names

if TYPE_CHECKING:
    from annofree.structures.detections import Detections

__all__ = ["Categories", "Columns", "encode_segmentation", "read_columns", "to_rows"]

Row = Mapping[str, Any]
Categories = Sequence[str] | Mapping[int, str] | Sequence[Row]
"""Names numbered from 1, names by their numbers, or COCO's own list of ``{"id": 1, "name": "dog"}``."""

_FEWEST_NUMBERS = 6  # of a polygon; four would be taken for a box


class Columns(NamedTuple):
    """What detections consist of but their size, in the order of ``Detections``."""

    names: tuple[str, ...]
    class_ids: IntArray
    scores: FloatArray
    boxes: FloatArray
    rles: tuple[RLE, ...]


def to_rows(found: Detections, image_id: int, category_ids: Sequence[int] | None) -> list[dict[str, Any]]:
    """Return annotations of an image, categories numbered from 1 unless they are given."""
    numbers = range(1, len(found.names) + 1) if category_ids is None else category_ids
    if len(numbers) != len(found.names):
        raise InputError(f"expected a category id for each of {len(found.names)} names, got {len(numbers)}")
    columns = found.class_ids.tolist(), found.scores.tolist(), found.boxes.tolist(), found.rles, found.areas.tolist()
    return [
        {
            "image_id": image_id,
            "category_id": numbers[k],
            "segmentation": to_json_rle(rle),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": area,
            "iscrowd": 0,
            "score": score,
        }
        for k, score, (x0, y0, x1, y1), rle, area in zip(*columns, strict=True)
    ]


def read_columns(rows: Iterable[Row], categories: Categories, size: tuple[int, int]) -> Columns:
    """Read annotations of one image of a size (H, W), in their order; without a score it is 1, without a box that of the mask.

    Raises InputError for rows of several images, crowds, rows without a mask, unknown categories, and what is no annotation.
    """
    check_size(size)
    rows, names = list(rows), _names(categories)
    _check_one_image(rows)
    places = {number: k for k, number in enumerate(names)}
    try:
        rles = tuple(_rle(row, size) for row in rows)
        ids = np.array([_place(row, places) for row in rows], np.int64)
        scores = np.array([1.0 if row.get("score") is None else row["score"] for row in rows], np.float32)
        boxes = compute_rle_boxes(rles)
        for box, row in zip(boxes, rows, strict=True):
            if row.get("bbox") is not None:
                x, y, width, height = row["bbox"]
                box[:] = x, y, x + width, y + height
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        if isinstance(problem, InputError):
            raise
        raise InputError(f"expected COCO annotations, but one is damaged or lacks {problem}") from None
    return Columns(tuple(names.values()), ids, scores, boxes, rles)


def _names(categories: Categories) -> dict[int, str]:
    if isinstance(categories, Mapping):
        return dict(categories)
    listed = list(to_names(categories))  # type: ignore[arg-type]  # of rows it makes a tuple as well
    if all(isinstance(one, str) for one in listed):
        return dict(enumerate(listed, 1))
    try:
        return {int(one["id"]): str(one["name"]) for one in listed}  # type: ignore[index]  # if not, it is refused
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f'expected categories as names, as {{1: "dog"}} or as [{{"id": 1, "name": "dog"}}], got {listed!r:.80}'
        ) from None


def _check_one_image(rows: Sequence[Row]) -> None:
    images = {row.get("image_id") for row in rows}
    if len(images) > 1:
        few = ", ".join(sorted(map(repr, images))[:5])
        raise InputError(
            f'expected annotations of one image, got {len(images)} images ({few}); [r for r in rows if r["image_id"] == ...]'
        )
    crowds = sum(bool(row.get("iscrowd")) for row in rows)
    if crowds:
        raise InputError(
            f'expected single things, got {crowds} crowds, which no detection is; [r for r in rows if not r["iscrowd"]]'
        )


def _place(row: Row, places: Mapping[int, int]) -> int:
    number = row["category_id"]
    if number not in places:
        few = ", ".join(map(str, list(places)[:5])) + (", ..." if len(places) > 5 else "")
        raise InputError(f"expected a category among {few}, got {number!r} in annotation {row.get('id')}; add it")
    return places[number]


def _rle(row: Row, size: tuple[int, int]) -> RLE:
    rle = encode_segmentation(row.get("segmentation"), size)
    if rle is None:
        raise InputError(f"expected a mask in each annotation, none in annotation {row.get('id')}; leave it out")
    return rle


def encode_segmentation(drawn: object, size: tuple[int, int]) -> RLE | None:
    """Return the segmentation of an annotation, polygons or run lengths, as compressed run lengths; None where it has none.

    Raises InputError for run lengths of another size than (H, W).

    >>> encode_segmentation([[1, 1, 3, 1, 3, 3, 1, 3]], (4, 6)), encode_segmentation([], (4, 6))
    ({'size': [4, 6], 'counts': b'5220;'}, None)
    """
    height, width = size
    if isinstance(drawn, list):
        polygons = [polygon for polygon in drawn if len(polygon) >= _FEWEST_NUMBERS]
        return fill_polygons(polygons, size) if polygons else None
    if not isinstance(drawn, dict):
        return None
    counts = drawn["counts"]
    if tuple(drawn["size"]) != size:
        raise InputError(f"expected masks of the size (H, W) {size} of their image, got {tuple(drawn['size'])}")
    if isinstance(counts, list):
        if sum(counts) != height * width:
            raise InputError(f"expected run lengths that add up to {height} x {width} pixels, got {sum(counts)}")
        return compress_counts(counts, size)
    return {"size": [height, width], "counts": counts.encode("ascii") if isinstance(counts, str) else counts}
