"""Which pseudo-masks ZUTIS learns from."""

import numpy as np
import pytest
from scipy import ndimage

from annofree.ops.rle import encode_rle
from annofree.retrieval.archive import PseudoMask
from annofree.structures import BoolArray
from annofree.training.archives.masks import choose_masks, measure_border, measure_largest_part


def box(*spans: tuple[int, int, int, int]) -> BoolArray:
    mask = np.zeros((20, 30), bool)
    for top, left, bottom, right in spans:
        mask[top:bottom, left:right] = True
    return mask


MASKS = {
    "whole": box((5, 5, 15, 20)),
    "in pieces": box((2, 2, 8, 8), (12, 12, 18, 18)),
    "with a speck": box((5, 5, 15, 20), (17, 25, 18, 26)),
    "ground": box((0, 0, 20, 30)) & ~box((5, 5, 15, 20)),
    "empty": box(),
}


def choose(**looks: float) -> list[str]:
    qualities = dict(zip(MASKS, (0.9, 0.8, 0.7, 0.6, 0.0), strict=True))
    return list(choose_masks({k: PseudoMask(k, encode_rle(m), qualities[k]) for k, m in MASKS.items()}, **looks))


def test_by_default_all_are_taken() -> None:
    assert choose() == list(MASKS)


@pytest.mark.parametrize(
    ("looks", "left"),
    [
        ({"min_quality": 0.75}, ["whole", "in pieces"]),
        ({"min_part": 0.95}, ["whole", "with a speck", "ground"]),
        ({"max_border": 0.1}, ["whole", "in pieces", "with a speck", "empty"]),
        ({"min_part": 0.95, "max_border": 0.1, "min_quality": 0.65}, ["whole", "with a speck"]),
    ],
)
def test_each_look_leaves_what_it_should(looks: dict[str, float], left: list[str]) -> None:
    assert choose(**looks) == left


def test_the_largest_part_is_that_of_a_slow_twin() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random((12, 9)) < 0.5
        parts, count = ndimage.label(mask)
        sizes = [int((parts == part).sum()) for part in range(1, count + 1)]
        assert measure_largest_part(mask) == pytest.approx(max(sizes) / sum(sizes))
        edge = [mask[y, x] for y in (0, -1) for x in range(9)] + [mask[y, x] for x in (0, -1) for y in range(12)]
        assert measure_border(mask) == pytest.approx(np.mean(edge))
