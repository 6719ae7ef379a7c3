"""Masks or boxes, images without predictions, limits of detections: what is chosen, said and refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from annofree.errors import InputError
from annofree.evaluation.metrics.answer import evaluate_answer
from annofree.evaluation.metrics.coverage import measure_coverage
from annofree.evaluation.metrics.errors import find_mistakes
from annofree.evaluation.metrics.instance import evaluate_instances
from annofree.evaluation.metrics.limits import check_limit
from annofree.evaluation.metrics.oracles import evaluate_oracles
from annofree.evaluation.metrics.separation import Separation, evaluate_separation
from annofree.evaluation.metrics.shapes import choose_iou_type, compute_box
from annofree.evaluation.metrics.truth import check_truth
from annofree.evaluation.predict_instances import score_predictions
from annofree.formats.coco import CocoFile

Rows = list[dict[str, Any]]


def box(x: float, y: float = 0, side: float = 20, **more: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 1, "bbox": [x, y, side, side], **more}


def masked(row: dict[str, Any]) -> dict[str, Any]:
    x, y, w, h = row["bbox"]
    return {**row, "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}


def truth_of(*rows: dict[str, Any], images: int = 1) -> CocoFile:
    file = CocoFile.with_categories({1: "dog", 2: "cat"})
    for number in range(images):
        file.add_image(f"{number}.jpg", (100, 120))
    file.add_annotations(rows)
    return file


# Masks or boxes

WHOLE, BARE = masked(box(0)), box(0)


@pytest.mark.parametrize(
    ("truth", "said", "asked", "chosen", "note"),
    [
        ([WHOLE], [WHOLE], None, "segm", None),
        ([WHOLE], [WHOLE], "segm", "segm", None),
        ([WHOLE], [WHOLE], "bbox", "bbox", None),
        ([], [], None, "segm", None),
        ([BARE], [WHOLE], None, "bbox", "the truth has no masks, only boxes: boxes are scored"),
        ([BARE], [], None, "bbox", "the truth has no masks, only boxes: boxes are scored"),
        ([{**BARE, "segmentation": []}], [BARE], None, "bbox", "the truth has no masks, only boxes: boxes are scored"),
        ([WHOLE], [BARE], None, "bbox", "the predictions have no masks, only boxes: boxes are scored"),
        ([WHOLE, BARE], [BARE], None, "bbox", "the predictions have no masks, only boxes: boxes are scored"),
        ([WHOLE, BARE], [WHOLE, BARE], "bbox", "bbox", None),
    ],
)
def test_boxes_are_scored_where_a_side_has_no_masks(
    truth: Rows, said: Rows, asked: str | None, chosen: str, note: str | None
) -> None:
    assert choose_iou_type(truth_of(*truth), said, asked) == (chosen, note)


@pytest.mark.parametrize(
    ("truth", "said", "asked", "message"),
    [
        ([WHOLE, BARE], [WHOLE], None, r"1 of 2 in the truth have none: annotation 2 on 0\.jpg; score boxes .*--iou bbox"),
        ([WHOLE, *[BARE] * 5], [WHOLE], "segm", r"5 of 6 in the truth have none: .*annotation 4 on 0\.jpg \.\.\.; score boxes"),
        ([WHOLE], [WHOLE, BARE], None, r"1 of 2 in the predictions have none: prediction 1 on 0\.jpg"),
        ([WHOLE], [BARE], "segm", "1 of 1 in the predictions have none"),
        ([BARE], [WHOLE], "segm", "1 of 1 in the truth have none"),
        (
            [WHOLE],
            [{**BARE, "bbox": None}],
            None,
            r"a box or a mask in every annotation, but 1 of 1 in the predictions .*; add",
        ),
        ([{**BARE, "bbox": []}], [WHOLE], "bbox", r"a box or a mask in every annotation, but 1 of 1 in the truth"),
        ([WHOLE], [WHOLE], "boxes", "unknown IoU 'boxes'.* Known: bbox, segm"),
    ],
)
def test_masks_of_some_are_refused(truth: Rows, said: Rows, asked: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_iou_type(truth_of(*truth), said, asked)


@pytest.mark.parametrize("bad", [[0, 0, 5], [0, 0, 5, 5, 5], [0, 0, -5, 5], [0, 0, float("nan"), 5], ["0", 0, 5, 5], "0055", 7])
def test_boxes_that_are_none_are_refused(bad: object) -> None:
    with pytest.raises(InputError, match="expected a box as x y w h"):
        compute_box({"image_id": 1, "bbox": bad}, (9, 9))
    for score in (evaluate_instances, evaluate_answer, evaluate_oracles, find_mistakes):
        with pytest.raises(InputError, match="expected a box as x y w h"):
            score(truth_of(box(0)), [box(0, score=0.5) | {"bbox": bad}], iou_type="bbox")


@pytest.mark.parametrize(
    "bad",
    [
        *([[1, 2]], [[1, 2, 3, 4]], [[]], [[[1, 2], [3, 4], [5, 6]] * 2], [["a"] * 6], [[float("nan")] * 6]),
        *("polygon", 5, {"size": [100, 120]}, {"counts": [12000]}),
        *({"size": [100, 120], "counts": [5]}, {"size": [100, 120], "counts": 5}, {"size": [100, 120], "counts": "@@@@"}),
    ],
)
def test_masks_that_are_none_are_refused(bad: object) -> None:
    with pytest.raises(InputError, match=r"expected (a mask|masks) (as|of)"):
        evaluate_instances(truth_of(masked(box(0))), [box(0, score=0.5, segmentation=bad)])


def test_a_box_is_measured_from_the_mask_where_none_is_written() -> None:
    row = masked(box(3, 4))
    del row["bbox"]
    assert compute_box(row, (100, 120)) == [3, 4, 20, 20]
    with pytest.raises(InputError, match="neither in one of image 1"):
        compute_box({"image_id": 1, "segmentation": []}, (9, 9))


def test_every_score_follows_boxes() -> None:
    """Boxes that fit with masks that do not: halves of one square, whose boxes are written as the whole."""
    left = [[0, 0, 10, 0, 10, 20, 0, 20]]
    truth = truth_of(masked(box(0)), masked(box(21)))
    said = [{**box(0), "segmentation": [[12, 0, 20, 0, 20, 20, 12, 20]], "score": 0.9}, {**masked(box(21)), "score": 0.8}]
    truth.annotations[0]["segmentation"] = left
    by_masks, by_boxes = score_predictions(truth, said), score_predictions(truth, said, iou_type="bbox")
    assert "class-aware masks" in by_masks and set(by_masks) - set(by_boxes) == {"class-aware masks", "class-agnostic masks"}
    assert by_masks["class-aware boxes"] == by_boxes["class-aware boxes"]
    assert (evaluate_answer(truth, said).n_right, evaluate_answer(truth, said, iou_type="bbox").n_right) == (1, 2)
    assert by_boxes["class-aware separation"] == Separation(1, 1) and by_masks["class-aware separation"] == Separation(0, 0)
    assert (find_mistakes(truth, said).right, find_mistakes(truth, said, iou_type="bbox").right) == (1, 2)
    assert evaluate_oracles(truth, said, iou_type="bbox").ap == 1 != evaluate_oracles(truth, said).ap


def test_truth_of_boxes_alone_is_scored_throughout() -> None:
    truth = truth_of(box(0), box(21), box(60, iscrowd=1))
    said = [box(0, score=0.9), box(21, score=0.8), box(62, side=10, score=0.95)]
    assert {getattr(score, "ap", 1) for score in score_predictions(truth, said, iou_type="bbox").values()} == {1}
    assert evaluate_oracles(truth, said, iou_type="bbox").f1 == 1


@pytest.mark.parametrize(("gap", "pairs"), [(0, 1), (1.9, 1), (2, 0)])
def test_boxes_touch_when_less_than_two_pixels_apart(gap: float, pairs: int) -> None:
    truth = truth_of(box(0), box(20 + gap))
    said = [{**row, "score": 0.5} for row in truth.annotations]
    assert evaluate_separation(truth, said, iou_type="bbox") == Separation(pairs, pairs)
    assert evaluate_separation(truth, [box(0, side=20, score=0.5)], iou_type="bbox").separated == 0


# Images without predictions


def test_images_without_predictions_are_counted() -> None:
    truth = truth_of(box(0), box(0, image_id=2), box(30, image_id=2), box(0, image_id=3, iscrowd=1), images=4)
    found = measure_coverage(truth, [box(0, score=0.5)])
    assert (found.images, found.without, found.instances, found.unlisted) == (4, ("1.jpg", "2.jpg", "3.jpg"), 2, None)
    assert found.note == "3 of 4 images have no prediction at all; they count as misses (2 true instances)"
    listed = measure_coverage(truth, [box(0, score=0.5)], [1, 2])
    assert listed.note is not None and listed.note.endswith("(2 true instances; the file does not list 2 of them)")
    assert listed.to_json_dict()["without"] == ["1.jpg", "2.jpg", "3.jpg"]


def test_an_image_where_nothing_is_true_may_have_no_prediction() -> None:
    truth = truth_of(box(0), images=2)
    assert measure_coverage(truth, [box(0, score=0.5)], [1, 2]).note is None
    assert measure_coverage(truth, [box(0, score=0.5)]).note is None
    alone = measure_coverage(truth, [box(0, score=0.5)], [1]).note
    assert alone == "1 of 2 images has no prediction at all (nothing true is on them; the file does not list 1 of them)"
    everything = measure_coverage(truth, []).note
    assert everything == "2 of 2 images have no prediction at all; they count as misses (1 true instance)"


# Limits


@pytest.mark.parametrize("limit", [0, -1, 10_001, 1.5, True, "9"])
def test_limits_out_of_bounds_are_refused(limit: Any) -> None:
    with pytest.raises(InputError, match="expected 1 to 10,000 detections an image and class as the limit, got"):
        check_limit(limit)
    for score in (evaluate_instances, evaluate_oracles, find_mistakes):
        with pytest.raises(InputError, match="1 to 10,000"):
            score(truth_of(box(0)), [], iou_type="bbox", max_detections=limit)


def test_mistakes_are_looked_for_among_as_many() -> None:
    truth = truth_of(*(box(x) for x in (0, 30, 60)))
    said = [box(x, score=1 - x / 100) for x in (0, 30, 60)]
    before = copy.deepcopy(said)
    assert [find_mistakes(truth, said, iou_type="bbox", max_detections=n).right for n in (1, 2, 300)] == [1, 2, 3]
    assert said == before


# Truth


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (5, "expected annotation 0 of the truth with image_id and category_id, got 5"),
        ({"image_id": 1}, "with image_id and category_id"),
        (box(0, category_id=9), "annotation 0 of the truth has category_id 9, which is not among its 2 categories"),
        (box(0, area="large"), "expected area of annotation 0 of the truth as a number, got 'large'"),
        (box(0, iscrowd=[]), "expected iscrowd"),
    ],
)
def test_truth_that_cannot_be_scored_against_is_refused(row: Any, message: str) -> None:
    file = truth_of()
    file.annotations = [row]
    with pytest.raises(InputError, match=message):
        check_truth(file)


def test_numbers_that_are_not_known_are_measured() -> None:
    truth = truth_of(box(0, area=None, iscrowd=None))
    check_truth(truth)
    assert evaluate_instances(truth, [box(0, score=0.5)], iou_type="bbox").ap_small == 1
    assert evaluate_oracles(truth, [box(0, score=0.5)], iou_type="bbox").ap == 1
