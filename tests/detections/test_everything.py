"""Everything without a name: filters, box NMS, crops and small regions beside slow twins in numpy."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from annofree.detections.everything import Candidates, Crop, draw_candidates, list_crops, remove_small_regions
from annofree.detections.proposals import build_point_grid
from annofree.ops.enlarge import Enlargement
from annofree.ops.rle import decode_rles, encode_rles
from annofree.protocols import Embedding, PromptedMasks, SureMasker, Sureness

Array = np.ndarray[Any, Any]
SIZE = 24, 30


class Planted:
    """A masker that answers the k-th point with the k-th row of what was planted."""

    provenance: ClassVar[dict[str, Any]] = {}

    def __init__(self, masks: Array, quality: Array, stability: Array) -> None:
        self.answers = tuple(torch.from_numpy(a) for a in (masks, quality, stability))

    def embed(self, images: Any) -> list[Embedding]:
        raise NotImplementedError

    def predict_masks(self, embedding: Embedding, *, boxes: Any = None, points: Any = None, multimask: bool = False) -> Any:
        rows = torch.from_numpy(points[:, 0].astype(np.int64))
        return PromptedMasks(*(a[rows][:, : 3 if multimask else 1] for a in self.answers))


def plant(seed: int, count: int = 70) -> tuple[Planted, Array]:
    """Boxes of ones, some of them empty, with guesses that are sometimes equal or above 1, and one point each."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, 3, *SIZE), bool)
    for mask in masks.reshape(-1, *SIZE):
        y, x = rng.integers(0, 16, 2)
        mask[y : y + rng.integers(0, 14), x : x + rng.integers(1, 14)] = True
    quality = rng.integers(75, 110, (count, 3)).astype(np.float32) / 100
    stability = rng.integers(85, 100, (count, 3)).astype(np.float32) / 100
    points = np.stack([np.arange(count), np.zeros(count)], 1).astype(np.float32)
    return Planted(masks, quality, stability), points


def find_slowly(planted: Planted, iou: float) -> list[tuple[float, Array]]:
    """Official filters and NMS, mask by mask: inclusive boxes, > for the guess, >= for stability, strongest first."""
    kept: list[tuple[float, Array, tuple[int, ...]]] = []
    masks, quality, stability = (a.flatten(0, 1).numpy() for a in planted.answers)
    for k in np.argsort(-quality, kind="stable"):
        ys, xs = np.nonzero(masks[k])
        if not (quality[k] > np.float32(0.88) and stability[k] >= np.float32(0.95) and len(ys)):
            continue
        box = int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max())
        if all(compare_boxes(box, other) <= iou for _, _, other in kept):
            kept.append((float(quality[k]), masks[k], box))
    return [(guess, mask) for guess, mask, _ in kept]


def compare_boxes(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(wide, 0) * max(high, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union else 0.0


@pytest.mark.parametrize("seed", range(5))
def test_filters_nms_and_order_are_those_of_a_slow_twin(seed: int) -> None:
    planted, points = plant(seed)
    assert not isinstance(planted, SureMasker)
    whole = Crop((0, 0, SIZE[1], SIZE[0]), 0)
    found = draw_candidates(planted, Embedding(SIZE, ()), points, Sureness(), whole, SIZE)
    found = found.drop_cut(whole, SIZE).suppress(found.quality, 0.7)
    expected = find_slowly(planted, 0.7)
    assert len(expected) > 5 and found.quality.tolist() == [guess for guess, _ in expected]
    assert (decode_rles(found.rles, SIZE) == np.stack([mask for _, mask in expected])).all()


@pytest.mark.parametrize(("keep", "each"), [("all", 3), ("best", 1), ("first", 1)])
def test_masks_of_a_point_compete_as_asked(keep: Any, each: int) -> None:
    planted, points = plant(1)
    sure = Sureness(keep, quality=0, stability=0)
    masks, quality = sure.choose_masks(*(a[:, : 3 if sure.multimask else 1] for a in planted.answers[:2]))
    assert len(masks) == len(quality) == each * len(points)
    if keep == "best":
        assert quality.tolist() == planted.answers[1].max(1).values.tolist()


def test_what_is_no_number_is_not_stable() -> None:
    stability = torch.tensor([0.95, 0.9499, torch.nan])
    assert Sureness().pass_stable(stability).tolist() == [True, False, False]
    assert Sureness(stability=0).pass_stable(stability).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 70), st.integers(1, 70), st.sampled_from([0.0, 0.5, 1.0]))
def test_enlarged_by_matrices_as_by_two_interpolations(seed: int, height: int, width: int, offset: float) -> None:
    """The released way, whole, at any size; only pixels within rounding of a threshold may differ, and there are none."""
    scale = 64 / max(height, width)
    inner = tuple(max(1, int(n * scale + 0.5)) for n in (height, width))
    logits = torch.from_numpy(np.random.default_rng(seed).normal(-2, 1.5, (3, 1, 16, 16)).astype(np.float32))
    square = F.interpolate(logits, size=(64, 64), mode="bilinear", align_corners=False)[..., : inner[0], : inner[1]]
    full = F.interpolate(square, size=(height, width), mode="bilinear", align_corners=False)[:, 0]
    enlargement = Enlargement.through([(16, 64, n) for n in inner], (height, width), torch.device("cpu"))
    for k in range(3):
        (mask,), stability = enlargement.cut_masks(logits[k], offset)
        assert (mask == (full[k] > 0).numpy()).all()
        expected = (full[k] > offset).sum() / (full[k] > -offset).sum()
        assert torch.equal(stability[0].isnan(), expected.isnan()) and (expected.isnan() or stability[0] == expected)


def test_what_ends_with_its_crop_is_dropped_but_not_what_ends_with_the_image() -> None:
    size, crop = (100, 120), Crop((50, 0, 120, 100), 1)
    boxes = np.array([[71, 0, 119, 99], [70, 30, 90, 60], [30, 30, 60, 60], [75, 30, 99, 60]], np.float32)
    found = Candidates(({},) * 4, boxes, np.arange(4, dtype=np.float32))
    assert found.drop_cut(crop, size).quality.tolist() == [0, 3]


def test_crops_cover_the_image_and_share_a_part_with_their_neighbors() -> None:
    crops = list_crops((480, 640), 2, 512 / 1500)
    assert [sum(c.layer == k for c in crops) for k in range(3)] == [1, 4, 16]
    assert [c.box for c in crops[1:5]] == [(0, 0, 402, 322), (0, 159, 402, 480), (239, 0, 640, 322), (239, 159, 640, 480)]
    assert all(min(crop.size) > 0 for crop in list_crops((1, 1), 3, 0.3))


def test_holes_are_filled_islands_dropped_and_untouched_masks_win() -> None:
    plain, torn = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    plain[4:14, 4:14] = True
    torn[4:14, 4:14] = True
    torn[8, 8], torn[17, 17], torn[14, 14] = False, True, True  # a hole, an island, and what is joined at a corner
    specks = np.zeros((20, 20), bool)
    specks[0, 0], specks[0, 10:12] = True, True
    found = Candidates.of(encode_rles(np.stack([torn, plain, specks])), np.array([1.1, 0.9, 1.0], np.float32))
    clean = remove_small_regions(found, 5, 0.7)
    assert clean.quality.tolist() == [np.float32(1.0), np.float32(0.9)], "the torn one became like the untouched one"
    masks = decode_rles(clean.rles, (20, 20))
    assert masks[0].sum() == 2 and masks[0, 0, 10] and (masks[1] == plain).all()
    alone = decode_rles(remove_small_regions(found[np.array([0])], 5, 0.7).rles, (20, 20))[0]
    assert alone[8, 8] and alone[14, 14] and not alone[17, 17] and alone.sum() == 101


def test_a_grid_from_border_to_border_goes_column_by_column() -> None:
    points = build_point_grid(32, (480, 640), "borders")
    assert points[0].tolist() == [0, 0] and points[31].tolist() == [0, 480] and points[-1].tolist() == [640, 480]
    assert len(points) == 1024 and len(np.unique(points, axis=0)) == 1024
