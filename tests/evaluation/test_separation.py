from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from scipy.spatial.distance import cdist

from annofree.errors import InputError
from annofree.evaluation.metrics.separation import Separation, evaluate_separation
from annofree.evaluation.reports.instance import to_json_dict
from annofree.formats.coco import CocoFile

SIZE = (40, 60)


def rectangle(y0: int, x0: int, y1: int, x1: int, **more: Any) -> dict[str, Any]:
    mask = np.zeros(SIZE, np.uint8)
    mask[y0:y1, x0:x1] = 1
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"image_id": 1, "category_id": 1, "segmentation": rle, **more}


def truth_of(*rows: dict[str, Any]) -> CocoFile:
    file = CocoFile.with_categories({1: "dog", 2: "cat"})
    file.add_image("a.jpg", SIZE), file.add_image("b.jpg", SIZE)
    file.add_annotations(rows)
    return file


LEFT, RIGHT = rectangle(5, 5, 25, 25), rectangle(5, 25, 25, 45)
BOTH = rectangle(5, 5, 25, 45)
SIDE_BY_SIDE = truth_of(LEFT, RIGHT)


def scored(*rows: dict[str, Any], score: float = 0.9) -> list[dict[str, Any]]:
    return [{"score": score, **row} for row in rows]


def test_split_is_separated() -> None:
    assert evaluate_separation(SIDE_BY_SIDE, scored(LEFT, RIGHT)) == Separation(1, 1)


@pytest.mark.parametrize(
    "said",
    [
        [],
        [BOTH],
        [BOTH, BOTH],  # IoU is exactly 0.5 with each, twice
        [LEFT],
        [LEFT, LEFT],
        [LEFT, BOTH],
        [rectangle(5, 5, 25, 24), rectangle(5, 5, 25, 44)],
    ],
    ids=["nothing", "merged", "merged twice", "one", "one twice", "one and merged", "one and nearly merged"],
)
def test_merged_or_missed_is_not_separated(said: list[dict[str, Any]]) -> None:
    assert evaluate_separation(SIDE_BY_SIDE, scored(*said)) == Separation(1, 0)


def test_a_fit_needs_an_iou_of_one_half() -> None:
    half = rectangle(5, 35, 25, 45)  # 200 of 400 px
    less = rectangle(5, 36, 25, 45)
    assert evaluate_separation(SIDE_BY_SIDE, scored(LEFT, half)).separated == 1
    assert evaluate_separation(SIDE_BY_SIDE, scored(LEFT, less)).separated == 0


def test_the_class_has_to_be_right_only_where_names_count() -> None:
    said = scored({**LEFT, "category_id": 2}, RIGHT)
    assert evaluate_separation(SIDE_BY_SIDE, said).separated == 0
    assert evaluate_separation(SIDE_BY_SIDE, said, view="class-agnostic") == Separation(1, 1)


def test_a_merged_blob_beside_a_split_does_no_harm() -> None:
    assert evaluate_separation(SIDE_BY_SIDE, scored(BOTH, score=1.0) + scored(LEFT, RIGHT)).separated == 1


@pytest.mark.parametrize(("gap", "pairs"), [(0, 1), (1, 1), (2, 0), (5, 0)])
@pytest.mark.parametrize("direction", ["right", "below", "diagonal"])
def test_touching_leaves_at_most_one_free_pixel(gap: int, pairs: int, direction: str) -> None:
    x = 5 if direction == "below" else 15 + gap
    y = 5 if direction == "right" else 15 + gap
    rows = rectangle(5, 5, 15, 15), rectangle(y, x, y + 10, x + 10)
    for order in (rows, rows[::-1]):
        assert evaluate_separation(truth_of(*order), []).pairs == pairs


@pytest.mark.parametrize("seed", range(10))
def test_pairs_are_those_whose_pixels_are_within_two_of_each_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(6):
        y, x, radius = rng.uniform(0, 40), rng.uniform(0, 60), rng.uniform(3, 9)
        rows, columns = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
        masks.append((rows - y) ** 2 + (columns - x) ** 2 < radius**2)
    solid = [mask for mask in masks if mask.any()]
    points = [np.argwhere(mask) for mask in solid]
    near = sum(cdist(points[a], points[b], "chebyshev").min() <= 2 for a in range(len(solid)) for b in range(a))
    rles = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in solid]
    rows_ = [{"image_id": 1, "category_id": 1, "segmentation": rle} for rle in rles]
    assert evaluate_separation(truth_of(*rows_), scored(*rows_)) == Separation(near, near)


def test_boxes_that_overlap_do_not_touch_where_masks_do_not() -> None:
    corner = np.zeros(SIZE, np.uint8)
    corner[5:35, 5:8] = corner[32:35, 5:35] = 1
    row = {**LEFT, "segmentation": coco_mask.encode(np.asfortranarray(corner))}
    assert evaluate_separation(truth_of(row, rectangle(5, 20, 20, 35)), []).pairs == 0


@pytest.mark.parametrize("change", [{"category_id": 2}, {"iscrowd": 1}, {"image_id": 2}])
def test_pairs_are_two_instances_of_one_class_and_image(change: dict[str, int]) -> None:
    scores = evaluate_separation(truth_of(LEFT, {**RIGHT, **change}), scored(LEFT, RIGHT))
    assert scores == Separation(0, 0)
    assert scores.rate is None
    assert to_json_dict({"none": scores}) == {"none": {"pairs": 0, "separated": 0, "rate": None}}


def test_three_in_a_row_are_two_pairs_of_which_one_is_separated() -> None:
    thirds = [rectangle(5, x, 25, x + 15) for x in (5, 20, 35)]
    said = scored(thirds[0], rectangle(5, 20, 25, 36), rectangle(5, 20, 25, 50, score=0.1))
    assert evaluate_separation(truth_of(*thirds), said) == Separation(2, 1)


def test_only_the_hundred_best_of_an_image_take_part() -> None:
    crumbs = [rectangle(30, 0, 31, 1, category_id=2) for _ in range(98)]
    said = scored(LEFT, RIGHT, score=0.5)
    assert evaluate_separation(SIDE_BY_SIDE, said + scored(*crumbs)).separated == 1
    assert evaluate_separation(SIDE_BY_SIDE, said + scored(*crumbs, crumbs[0])).separated == 0  # RIGHT is the 101st
    elsewhere = [{**row, "image_id": 2} for row in scored(*crumbs, *crumbs)]
    assert evaluate_separation(SIDE_BY_SIDE, said + elsewhere).separated == 1


def test_a_subset_of_images_counts_that_subset() -> None:
    truth = truth_of(LEFT, RIGHT, *({**row, "image_id": 2} for row in (LEFT, RIGHT)))
    assert evaluate_separation(truth, scored(LEFT, RIGHT)) == Separation(2, 1)
    assert evaluate_separation(truth, scored(LEFT, RIGHT), image_ids=[2]) == Separation(1, 0)


def test_predictions_below_the_floor_are_left_out() -> None:
    said = scored(LEFT, score=0.5) + scored(RIGHT, score=0.3)
    assert evaluate_separation(SIDE_BY_SIDE, said, min_score=0.3).separated == 1
    assert evaluate_separation(SIDE_BY_SIDE, said, min_score=0.31).separated == 0


def test_files_are_matched_by_name() -> None:
    found = CocoFile.with_categories({5: "Dog"})
    found.images = [{"id": 8, "file_name": "runs/a.jpg"}]
    found.annotations = [{**row, "image_id": 8, "category_id": 5} for row in scored(LEFT, RIGHT)]
    assert evaluate_separation(SIDE_BY_SIDE, found).rate == 1


def test_truth_without_masks_is_refused() -> None:
    boxes = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5]}] * 2
    with pytest.raises(InputError, match="expected a segmentation"):
        evaluate_separation(truth_of(*boxes), [])
