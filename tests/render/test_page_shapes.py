"""Outlines on a page: near the masks that they stand for, and few bytes."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annofree.formats.annotations import Annotation
from annofree.formats.polygons import fill_to_rle
from annofree.ops.rle import decode_rle
from annofree.render.page_shapes import MOST_SHAPES, SIDE, compute_view_box, trace_shapes
from annofree.structures import BoolArray


def masked(path: str, size: tuple[int, int]) -> BoolArray:
    """The mask (H, W) of an SVG path, by the even-odd rule."""
    scale, mask = max(size) / SIDE, np.zeros(size, bool)
    for start, steps in re.findall(r"M([^l]*)l([^z]*)z", path):
        numbers = [int(n) for n in re.findall(r"-?\d+", start + " " + steps)]
        corners = np.cumsum(np.array(numbers).reshape(-1, 2), axis=0)
        mask ^= decode_rle(fill_to_rle([corners * scale], size))
    return mask


def blob(size: tuple[int, int], wobble: int, hole: bool) -> BoolArray:
    y, x = np.mgrid[: size[0], : size[1]]
    y, x = (y + 0.5) / size[0] - 0.5, (x + 0.5) / size[1] - 0.5
    radius, angle = np.hypot(y, x), np.arctan2(y, x)
    mask: BoolArray = radius < 0.35 + 0.1 * np.sin(wobble * angle)
    return mask & (radius > 0.12) if hole else mask


@pytest.mark.parametrize("size", [(60, 90), (480, 640), (2400, 1800)])
@pytest.mark.parametrize("hole", [False, True])
def test_outlines_are_near_the_masks(size: tuple[int, int], hole: bool) -> None:
    mask = blob(size, 5, hole)
    (shape,) = trace_shapes([Annotation.of_mask("dog", mask, 0.5)], size)
    drawn = masked(shape.path, size)
    assert (drawn & mask).sum() / (drawn | mask).sum() > (0.9 if max(size) < 100 else 0.97)
    assert shape.path.count("M") == 1 + hole and len(shape.path) < 1200
    (coarse,) = trace_shapes([Annotation.of_mask("dog", mask, 0.5)], size, points=24)
    assert coarse.path.count(" ") + coarse.path.count("-") <= 2 * (24 + coarse.path.count("M"))


@given(st.lists(st.booleans(), min_size=24, max_size=24).filter(any))
def test_any_mask_has_an_outline_within_its_image(pixels: list[bool]) -> None:
    mask = np.array(pixels).reshape(4, 6)
    (shape,) = trace_shapes([Annotation.of_mask("dog", mask)], mask.shape)
    assert re.fullmatch(r"(M\d+ \d+l[-\d ]+z)+", shape.path)
    for start, steps in re.findall(r"M([^l]*)l([^z]*)z", shape.path):
        corners = np.cumsum(np.array([int(n) for n in re.findall(r"-?\d+", f"{start} {steps}")]).reshape(-1, 2), axis=0)
        assert (corners >= 0).all() and (corners <= compute_view_box(mask.shape)).all()


def test_the_surest_are_drawn_last_and_not_too_many() -> None:
    things = [Annotation("dog", (0, 0, 5, 5), score=k / 300) for k in range(300)]
    shapes = trace_shapes(things, (10, 10))
    assert [shape.score for shape in shapes] == [k / 300 for k in range(300 - MOST_SHAPES, 300)]
    assert trace_shapes([], (10, 10)) == []


def test_noise_and_specks_are_drawn_too() -> None:
    noise = np.random.default_rng(0).random((300, 400)) < 0.5
    (shape,) = trace_shapes([Annotation.of_mask("dog", noise)], noise.shape)
    assert len(shape.path) < 3000
    speck = np.zeros((3000, 4000), bool)
    speck[1501, 2001] = True
    (shape,) = trace_shapes([Annotation.of_mask("dog", speck)], speck.shape)
    assert re.fullmatch(r"M50[0-2] 37[5-7]l.*z", shape.path)
