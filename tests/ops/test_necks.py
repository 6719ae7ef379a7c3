"""Masks are cut where they are narrow, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from annofree.ops.necks import cut_at_necks
from annofree.structures import BoolArray


def disc(y: float, x: float, radius: float, size: tuple[int, int] = (60, 100)) -> BoolArray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


def compute_iou(one: BoolArray, other: BoolArray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("radii", [(20, 20), (20, 14), (12, 24)])
def test_discs_that_touch_are_told_apart(radii: tuple[int, int]) -> None:
    a, b = disc(30, 26, radii[0]), disc(30, 25 + sum(radii), radii[1])
    pieces = cut_at_necks(a | b, 0.05)
    assert len(pieces) == 2
    assert (np.sum(pieces, axis=0) == (a | b)).all()  # each pixel is in one piece
    for whole in (a, b):
        assert max(compute_iou(piece, whole) for piece in pieces) > 0.9


def test_three_in_a_row() -> None:
    row = disc(30, 17, 15) | disc(30, 46, 15) | disc(30, 75, 15)
    assert [round(float(np.nonzero(piece)[1].mean()), -1) for piece in cut_at_necks(row, 0.05)] == [20, 50, 80]


@pytest.mark.parametrize(
    "mask", [disc(30, 50, 25), np.ones((30, 50), bool), np.eye(5, dtype=bool)[:1]], ids=["disc", "all", "px"]
)
def test_what_has_no_neck_is_left_whole(mask: BoolArray) -> None:
    assert cut_at_necks(mask, 0.05) == []


def test_nothing_has_no_pieces() -> None:
    assert cut_at_necks(np.zeros((4, 5), bool), 0.05) == []
    assert cut_at_necks(np.zeros((0, 0), bool), 0.05) == []


def test_a_deeper_cut_needs_a_narrower_neck() -> None:
    near = disc(30, 35, 20) | disc(30, 60, 20)  # the neck is nearly as wide as they are
    counts = [len(cut_at_necks(near, depth)) for depth in (0.05, 0.15, 0.3)]
    assert counts[0] == 2 and counts[-1] == 0 and counts == sorted(counts, reverse=True)


def test_the_size_of_the_image_and_the_place_in_it_do_not_matter() -> None:
    mask = disc(30, 26, 20) | disc(30, 60, 14)
    pieces = cut_at_necks(mask, 0.05)
    moved = cut_at_necks(np.pad(mask, ((7, 0), (3, 9))), 0.05)
    assert [np.pad(piece, ((7, 0), (3, 9))).tobytes() for piece in pieces] == [piece.tobytes() for piece in moved]
    larger = cut_at_necks(np.kron(mask, np.ones((3, 3), bool)), 0.05)
    assert len(larger) == 2
    for piece, large in zip(pieces, larger, strict=True):
        assert compute_iou(np.kron(piece, np.ones((3, 3), bool)), large) > 0.95


def test_a_large_mask_is_looked_at_more_coarsely_and_no_pixel_is_lost() -> None:
    whole = disc(300, 300, 200, (600, 1100)) | disc(300, 690, 200, (600, 1100))
    whole[10:60, 299] = True  # a hair, one px wide
    pieces = cut_at_necks(whole, 0.05)
    assert (np.sum(pieces, axis=0) == whole).all()
    large = sorted(pieces, key=np.count_nonzero)[-2:]
    assert all(max(compute_iou(piece, disc(300, x, 200, (600, 1100))) for x in (300, 690)) > 0.97 for piece in large)
