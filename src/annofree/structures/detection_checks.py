"""What has to be true of detections: one error names the first thing that is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from annofree.errors import InputError
from annofree.ops.rle import RLE
from annofree.structures.arrays import FloatArray, IntArray, check_names, check_size, describe_value

if TYPE_CHECKING:
    from annofree.structures.detections import Detections

__all__ = ["check_detections", "check_masks"]


def check_detections(found: Detections) -> None:
    """Raise InputError for detections whose columns do not belong together, or hold what no detection can have."""
    check_size(found.size)
    check_names(found.names)
    _check_column("class_ids", found.class_ids, np.int64)
    _check_column("scores", found.scores, np.float32)
    _check_column("boxes", found.boxes, np.float32, columns=4)
    counts = len(found.class_ids), len(found.scores), len(found.boxes), len(found.rles)
    if len(set(counts)) > 1:
        raise InputError("expected as many class ids, scores, boxes and rles, got {}, {}, {} and {}".format(*counts))
    if counts[0]:
        _check_ids(found.class_ids, found.names)
        _check_scores(found.scores)
        _check_boxes(found.boxes)
        _check_rles(found.rles, found.size)


def check_masks(masks: npt.NDArray[np.bool_], ids: int, scores: int) -> None:
    """Raise InputError unless masks are (N, H, W) bool, H and W above 0, with as many class ids and scores."""
    if not (isinstance(masks, np.ndarray) and masks.dtype == bool and masks.ndim == 3 and len(masks) == ids == scores):
        raise InputError(
            f"expected masks (N, H, W) bool with N class ids and scores, got {describe_value(masks)}, {ids}, {scores}"
        )
    check_size(masks.shape[1:])


def _check_column(name: str, values: object, dtype: type, columns: int = 0) -> None:
    typed = isinstance(values, np.ndarray) and values.dtype == dtype and values.ndim == 1 + bool(columns)
    if typed and values.shape[1:] == ((columns,) if columns else ()):  # type: ignore[attr-defined]  # an array
        return
    shape, kind = f"(N, {columns})" if columns else "(N)", np.dtype(dtype).name
    raise InputError(
        f"expected {name} as an {shape} {kind} array, got {describe_value(values)}; np.asarray({name}, np.{kind}), or "
        "Detections.from_masks, which makes all columns"
    )


def _check_ids(ids: IntArray, names: tuple[str, ...]) -> None:
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= len(names):
        strange = low if low < 0 else high
        listed = ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
        raise InputError(
            f"expected class ids from 0 to {len(names) - 1}, the places of the names ({listed}), got {strange}; add its name, "
            "or leave the detection out"
        )


def _check_scores(scores: FloatArray) -> None:
    # NaN is no number that compares, so it is refused as well
    if not (scores.min() >= 0 and scores.max() <= 1):
        row = int(np.flatnonzero(~((scores >= 0) & (scores <= 1)))[0])
        raise InputError(f"expected scores from 0 to 1, got {scores[row]:g} in row {row}; divide or np.clip them")


def _check_boxes(boxes: FloatArray) -> None:
    if not ((boxes[:, :2] <= boxes[:, 2:]).all() and np.isfinite(boxes).all()):
        fine = np.isfinite(boxes).all(1) & (boxes[:, :2] <= boxes[:, 2:]).all(1)
        row = int(np.flatnonzero(~fine)[0])
        raise InputError(
            f"expected boxes as x0 y0 x1 y1 in pixels with x0 <= x1 and y0 <= y1, got {boxes[row].tolist()} in row {row}; are "
            "they x y width height, as COCO has them?"
        )


def _check_rles(rles: tuple[RLE, ...], size: tuple[int, int]) -> None:
    if not isinstance(rles, tuple):
        raise InputError(f"expected rles as a tuple of run lengths, got {describe_value(rles)}; tuple(rles)")
    height, width = size
    for row, rle in enumerate(rles):
        counts, own = rle.get("counts"), rle.get("size")
        # run lengths of another size would match nothing, and be drawn elsewhere
        if not (isinstance(counts, bytes) and own is not None and len(own) == 2 and own[0] == height and own[1] == width):
            raise InputError(
                f"expected masks as compressed run lengths of size {[height, width]} with counts as bytes, got size {own} and "
                f"counts as {type(counts).__name__} in row {row}"
            )
