"""OpenCV's bilinear resizing in whole numbers, beside a slow twin, beside plain interpolation, and beside OpenCV itself."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np
import pytest

from annofree.ops.fixed_bilinear import resize_levels

CASES = [
    ((40, 60), (32, 32)),
    ((9, 7), (32, 20)),
    ((1, 1), (3, 5)),
    ((64, 30), (32, 32)),
    ((64, 48), (32, 24)),
    ((61, 83), (16, 40)),
]

needs_opencv = pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="OpenCV is not there to compare with")


def noise(size: tuple[int, int]) -> Any:
    return np.random.default_rng(size).integers(0, 256, (*size, 3), dtype=np.uint8)


def resize_slowly(pixels: Any, size: tuple[int, int]) -> Any:
    """Value by value: a weight is an eleven-bit number, sums lose 4 bits, products 16, and what is left is halved twice."""
    out = np.zeros((*size, 3), np.uint8)
    for i, j, c in np.ndindex(*size, 3):
        (y, v), (x, u) = (place(k, n, m) for k, n, m in zip((i, j), pixels.shape[:2], size, strict=True))
        if x < 0 or x >= pixels.shape[1] - 1:
            u = np.float32(0)
        rows = [min(max(k, 0), pixels.shape[0] - 1) for k in (y, y + 1)]
        columns = [min(max(k, 0), pixels.shape[1] - 1) for k in (x, x + 1)]
        near, far, up, low = (int(np.rint(w * np.float32(2048))) for w in (1 - u, u, 1 - v, v))
        high, deep = (int(pixels[r, columns[0], c]) * near + int(pixels[r, columns[1], c]) * far for r in rows)
        out[i, j, c] = (((high >> 4) * up >> 16) + ((deep >> 4) * low >> 16) + 2) >> 2
    return out


def place(k: int, before: int, after: int) -> tuple[int, np.float32]:
    at = np.float32((k + 0.5) * (before / after) - 0.5)
    return math.floor(at), at - np.float32(math.floor(at))


@pytest.mark.parametrize(("size", "target"), [case for case in CASES if case != ((64, 48), (32, 24))])
def test_it_is_the_slow_twin(size: tuple[int, int], target: tuple[int, int]) -> None:
    assert (resize_levels(noise(size), target) == resize_slowly(noise(size), target)).all()


def test_half_the_size_is_the_mean_of_four_rounded_up_at_halves() -> None:
    pixels = noise((64, 48)).astype(int)
    fours = pixels.reshape(32, 2, 24, 2, 3).sum((1, 3))
    assert (resize_levels(noise((64, 48)), (32, 24)) == (fours + 2) // 4).all()


@pytest.mark.parametrize("size", [(7, 9), (20, 31)])
def test_flat_images_stay_as_they_are_and_the_same_size_too(size: tuple[int, int]) -> None:
    assert (resize_levels(noise(size), size) == noise(size)).all()
    for level in (0, 1, 127, 254, 255):
        flat = np.full((*size, 3), level, np.uint8)
        assert (np.abs(resize_levels(flat, (16, 16)).astype(int) - level) <= 1).all()


@needs_opencv
@pytest.mark.parametrize(("size", "target"), [*CASES, ((480, 640), (256, 256)), ((427, 640), (512, 767))])
def test_it_is_opencv(size: tuple[int, int], target: tuple[int, int]) -> None:
    cv2: Any = importlib.import_module("cv2")
    theirs = cv2.resize(noise(size), target[::-1], interpolation=cv2.INTER_LINEAR)
    assert (theirs != resize_levels(noise(size), target)).mean() <= 0.001
