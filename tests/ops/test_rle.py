"""Run-length masks against pycocotools, byte for byte and number for number, and what it would read wrongly is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as oracle

from annofree.errors import InputError
from annofree.ops.rle import (
    RLE,
    BoolArray,
    compress_counts,
    compute_box_ious,
    compute_rle_area,
    compute_rle_areas,
    compute_rle_box,
    compute_rle_boxes,
    compute_rle_ious,
    compute_rle_parts,
    decode_rle,
    decode_rles,
    encode_rle,
    encode_rles,
    fill_polygons,
    merge_rles,
    to_json_rle,
)

MASKS = array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9).flatmap(lambda shape: arrays(bool, shape))
POINTS = st.lists(st.floats(-3, 12, width=32), min_size=6, max_size=14).filter(lambda points: len(points) % 2 == 0)
DAMAGED = {"text": b"hello world \xff", "too long": b"0Pbc0Pbc0Pbc1", "cut off": b"l", "negative": b"o1P"}
READERS: dict[str, Callable[[RLE], Any]] = {
    "decode_rle": decode_rle,
    "decode_rles": lambda rle: decode_rles([rle], (3, 4)),
    "rle_area": compute_rle_area,
    "rle_box": compute_rle_box,
    "rle_iou": lambda rle: compute_rle_ious([rle], [rle]),
    "rle_part": lambda rle: compute_rle_parts([rle], [rle]),
    "merge_rles": lambda rle: merge_rles([rle]),
}


@given(MASKS)
def test_bytes_and_numbers_are_those_of_pycocotools(masks: BoolArray) -> None:
    rles, theirs = encode_rles(masks), oracle.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    assert rles == theirs == [encode_rle(mask) for mask in masks]
    assert np.array_equal(decode_rles(rles, masks.shape[1:]), masks)
    assert all(np.array_equal(decode_rle(to_json_rle(rle)), mask) for rle, mask in zip(rles, masks, strict=True))
    assert compute_rle_areas(rles).tolist() == oracle.area(theirs).tolist() == [compute_rle_area(rle) for rle in rles]
    xywh = oracle.toBbox(theirs)
    assert compute_rle_boxes(rles).tolist() == [[x, y, x + w, y + h] for x, y, w, h in xywh.tolist()]
    assert [list(compute_rle_box(rle)) for rle in rles] == compute_rle_boxes(rles).tolist()
    assert np.array_equal(compute_rle_ious(rles, rles[:1]), oracle.iou(theirs, theirs[:1], [0]))
    assert np.array_equal(compute_rle_parts(rles[:1], rles), oracle.iou(theirs[:1], theirs, [1] * len(theirs)))
    assert np.array_equal(compute_box_ious(xywh, xywh[:1]), oracle.iou(xywh, xywh[:1], [0]))
    assert merge_rles(rles) == oracle.merge(theirs)


@given(st.lists(POINTS, min_size=1, max_size=3))
def test_polygons_are_filled_as_by_pycocotools(polygons: list[list[float]]) -> None:
    assert fill_polygons(polygons, (9, 8)) == oracle.merge(oracle.frPyObjects(polygons, 9, 8))


def test_four_numbers_are_a_box() -> None:
    assert decode_rle(fill_polygons([[1, 0, 2, 2]], (3, 4))).astype(int).tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_plain_counts_are_compressed_as_by_pycocotools() -> None:
    assert compress_counts([2, 3, 7], (3, 4)) == oracle.frPyObjects({"size": [3, 4], "counts": [2, 3, 7]}, 3, 4)


def test_none_at_all() -> None:
    one = encode_rle(np.ones((3, 4), bool))
    assert encode_rles(np.zeros((0, 3, 4), bool)) == []
    assert decode_rles([], (3, 4)).shape == (0, 3, 4)
    assert compute_rle_areas([]).shape == (0,) and compute_rle_boxes([]).shape == (0, 4)
    assert (
        compute_rle_ious([], [one]).shape == (0, 1)
        and compute_rle_parts([one], []).shape == (1, 0)
        and compute_box_ious([], []).shape == (0, 0)
    )


def test_crowds_are_asked_one_by_one() -> None:
    left, whole = encode_rles(np.array([[[1, 0], [1, 0]], [[1, 1], [1, 1]]], bool))
    assert compute_rle_ious([left], [whole, whole], [0, 1]).tolist() == [[0.5, 1.0]]


@pytest.mark.parametrize("counts", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_damaged_run_lengths_are_refused(read: Callable[[RLE], Any], counts: bytes) -> None:
    with pytest.raises(InputError, match="expected masks as run lengths that the COCO API can read"):
        read({"size": [3, 4], "counts": counts})


def test_polygons_that_cannot_be_filled_are_refused() -> None:
    with pytest.raises(InputError, match="expected polygons that the COCO API can read"):
        fill_polygons([[float("nan"), 1.0, 2.0, 3.0, 4.0, 5.0]], (3, 4))
