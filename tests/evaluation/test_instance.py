from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console

from annofree.errors import InputError
from annofree.evaluation.metrics.instance import InstanceScores, IouType, count_instances, evaluate_instances
from annofree.evaluation.metrics.predictions import View, match_predictions, read_predictions
from annofree.evaluation.reports.instance import as_table, to_json_dict
from annofree.formats.coco import CocoFile
from annofree.testing.tolerances import assert_close

SIZE = (140, 180)
NAMES = {3: "dog", 7: "cat", 21: "traffic light"}
FIELDS = (
    "ap",
    "ap50",
    "ap75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar1",
    "ar10",
    "ar100",
    "ar_small",
    "ar_medium",
    "ar_large",
)

Rows = list[dict[str, Any]]


def blob(rng: np.random.Generator, box: np.ndarray[Any, Any]) -> dict[str, Any]:
    """An annotation whose mask is an ellipse in a box x y w h, with a bite out of it."""
    x, y, w, h = box
    rows, columns = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    mask = ((columns - x - w / 2) / (w / 2)) ** 2 + ((rows - y - h / 2) / (h / 2)) ** 2 <= 1
    mask[int(y + rng.uniform(0, h)) :, int(x + w * 0.8) :] = False
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "segmentation": {"size": list(SIZE), "counts": rle["counts"].decode("ascii")},
        "bbox": coco_mask.toBbox(rle).tolist(),
        "area": float(coco_mask.area(rle)),
    }


def random_box(rng: np.random.Generator) -> np.ndarray[Any, Any]:
    w, h = rng.choice([12, 24, 45, 80, 125], 2) * rng.uniform(0.8, 1.1, 2)
    return np.array([rng.uniform(0, SIZE[1] - w), rng.uniform(0, SIZE[0] - h), w, h])


def random_case(seed: int) -> tuple[CocoFile, Rows]:
    """Truth with crowds and several classes, and predictions that are moved copies, wrong names and false alarms."""
    rng = np.random.default_rng(seed)
    truth, said = CocoFile.with_categories(NAMES), []
    for n in range(5):
        image_id = truth.add_image(f"val/{n}.jpg", SIZE)
        for _ in range(rng.integers(0, 6)):
            box, class_id = random_box(rng), int(rng.choice(list(NAMES)))
            crowd = int(rng.random() < 0.2)
            truth.add_annotations([{"image_id": image_id, "category_id": class_id, "iscrowd": crowd, **blob(rng, box)}])
            for _ in range(rng.integers(0, 3)):
                moved = box + rng.normal(0, rng.choice([0.5, 4, 12]), 4) * [1, 1, 0.5, 0.5]
                moved[2:] = np.maximum(moved[2:], 6)
                named = class_id if rng.random() < 0.8 else int(rng.choice(list(NAMES)))
                said.append({"image_id": image_id, "category_id": named, **blob(rng, moved)})
        said += [{"image_id": image_id, "category_id": 3, **blob(rng, random_box(rng))} for _ in range(rng.integers(0, 14))]
    scores = np.round(rng.random(len(said)), 1)  # many ties
    return truth, [{**row, "score": float(score)} for row, score in zip(said, scores, strict=True)]


def pycocotools_engine(truth: CocoFile, said: Rows, view: View, iou_type: IouType, limits: list[int]) -> COCOeval:
    real: Rows = [{**row} for row in copy.deepcopy(truth.annotations)]
    rows = copy.deepcopy(said)
    for row in rows if iou_type == "segm" else []:
        del row["bbox"]  # as detectron2 and CutLER do, so that a prediction is as large as its mask
    for row in real + rows if view == "class-agnostic" else []:
        row["category_id"] = 3
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": truth.images, "categories": truth.categories, "annotations": real}
        coco.createIndex()
        oracle = COCOeval(coco, coco.loadRes(rows), iou_type)
        oracle.params.maxDets = limits
        oracle.evaluate()
        oracle.accumulate()
    return oracle


def pycocotools_says(truth: CocoFile, said: Rows, view: View, iou_type: IouType) -> list[float]:
    oracle = pycocotools_engine(truth, said, view, iou_type, [1, 10, 100])
    with contextlib.redirect_stdout(io.StringIO()):
        oracle.summarize()
    return [float(value) for value in oracle.stats]


def twelve(scores: InstanceScores) -> list[float]:
    values = [getattr(scores, field) for field in FIELDS]
    return [-1.0 if value is None else value for value in values]


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("view", ["class-aware", "class-agnostic"])
@pytest.mark.parametrize("seed", range(8))
def test_all_twelve_numbers_are_those_of_pycocotools(seed: int, view: View, iou_type: IouType) -> None:
    truth, said = random_case(seed)
    before = copy.deepcopy((truth, said))
    scores = evaluate_instances(truth, said, view=view, iou_type=iou_type)
    assert_close(twelve(scores), pycocotools_says(truth, said, view, iou_type))
    assert 0 < twelve(scores)[1] < 1
    assert (truth, said) == before
    assert scores.n_truth == sum(not row["iscrowd"] for row in truth.annotations)
    assert (scores.n_images, scores.n_predictions) == (5, len(said))


def test_more_than_a_hundred_predictions_are_cut_as_pycocotools_cuts_them() -> None:
    truth, said = random_case(3)
    rng = np.random.default_rng(0)
    said += [{"image_id": 1, "category_id": 7, "score": float(s), **blob(rng, random_box(rng))} for s in rng.random(130)]
    scores = evaluate_instances(truth, said, view="class-agnostic", iou_type="segm")
    assert_close(twelve(scores), pycocotools_says(truth, said, "class-agnostic", "segm"))


@pytest.mark.parametrize("limit", [1, 5, 10, 100, 300])
@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_any_limit_of_detections_counts_as_pycocotools_counts(limit: int, iou_type: IouType) -> None:
    truth, said = random_case(3)
    rng = np.random.default_rng(0)
    own = [row for row in truth.annotations if row["image_id"] == truth.annotations[0]["image_id"]]
    for k in rng.integers(0, len(own), 250):  # more than 100 and fewer than 300 of one class on one image
        row = own[int(k)]
        moved = np.array(row["bbox"]) + rng.normal(0, 6, 4)
        said.append({**row, **blob(rng, np.maximum(moved, 4)), "category_id": 3, "score": float(rng.random())})
    limits = [n for n in (1, 10) if n < limit] + [limit]
    counted = count_instances(truth, said, iou_type=iou_type, max_detections=limit)
    theirs = pycocotools_engine(truth, said, "class-aware", iou_type, limits)
    assert_close(counted.precision, theirs.eval["precision"])
    assert_close(counted.recall, theirs.eval["recall"])
    scores, of_all = counted.compute_scores(), theirs.eval["recall"][:, :, 0]
    assert counted.limits == tuple(limits) and scores.max_detections == limit
    assert_close(scores.ar, of_all[:, :, -1][of_all[:, :, -1] > -1].mean())
    assert scores.ar100 == (scores.ar if limit == 100 else None)
    assert (scores.ar10 is None) == (limit < 10) and scores.ar1 is not None
    label = "AR100" if limit == 100 else f"AR@{limit}"
    columns = [column.header for column in as_table({"zip": scores}, "all").columns]
    assert [c for c in columns if str(c).startswith("AR")] == [*(f"AR{n}" for n in limits[:-1]), label]
    plain = to_json_dict({"zip": scores})["zip"]
    assert plain[f"ar{limit}"] == scores.ar and "ar" not in plain and ("ar100" in plain) == (limit == 100)


def square(x: float, side: float = 20, **more: Any) -> dict[str, Any]:
    corners = [x, 0, x + side, 0, x + side, side, x, side]
    return {"image_id": 1, "category_id": 3, "segmentation": [corners], "bbox": [x, 0, side, side], **more}


def file_of(*rows: dict[str, Any], file_name: str = "val/a.jpg", names: dict[int, str] = NAMES) -> CocoFile:
    file = CocoFile.with_categories(names)
    file.add_image(file_name, SIZE)
    file.add_annotations(rows)
    return file


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_one_of_two_found_has_the_ap_worked_by_hand(iou_type: IouType) -> None:
    scores = evaluate_instances(file_of(square(0), square(60)), [square(0, score=0.9)], iou_type=iou_type)
    # Precision is 1 at the 51 of 101 recall points up to 0.5, and 0 beyond.
    assert_close([scores.ap, scores.ap50, scores.ap75, scores.ap_small], [51 / 101] * 4)
    assert_close([scores.ar1, scores.ar100, scores.ar_small], [0.5] * 3)
    assert scores.ap_medium is None and scores.ap_large is None and scores.ar_large is None
    assert (scores.n_images, scores.n_truth, scores.n_predictions) == (1, 2, 1)


def test_a_shift_of_a_quarter_passes_the_ious_below_three_fifths() -> None:
    # IoU is 15 / 25 = 0.6, reached at the thresholds 0.50, 0.55 and 0.60 of ten.
    scores = evaluate_instances(file_of(square(0)), [square(5, score=0.9)], iou_type="segm")
    assert_close([scores.ap, scores.ap50, scores.ap75], [0.3, 1.0, 0.0])


def test_the_wrong_name_counts_only_where_names_count() -> None:
    truth = file_of(square(0))
    assert evaluate_instances(truth, [square(0, category_id=7, score=0.9)], view="class-aware").ap == 0
    assert evaluate_instances(truth, [square(0, category_id=7, score=0.9)], view="class-agnostic").ap == 1
    assert evaluate_instances(truth, [square(0, category_id=999, score=0.9)], view="class-agnostic").ap == 1


@pytest.mark.parametrize("view", ["class-aware", "class-agnostic"])
def test_a_prediction_on_a_crowd_is_no_false_alarm(view: View) -> None:
    said = [square(100, score=0.9), square(0, score=0.8)]
    crowd = square(60, side=100, iscrowd=1)
    assert_close(evaluate_instances(file_of(square(0)), said, view=view).ap50, 0.5)
    assert evaluate_instances(file_of(square(0), crowd), said, view=view).ap50 == 1


@pytest.mark.parametrize("view", ["class-aware", "class-agnostic"])
@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_no_predictions_score_zero(view: View, iou_type: IouType) -> None:
    scores = evaluate_instances(file_of(square(0)), [], view=view, iou_type=iou_type)
    assert (scores.ap, scores.ap50, scores.ap_small, scores.ar1, scores.ar100) == (0, 0, 0, 0, 0)
    assert (scores.n_truth, scores.n_predictions) == (1, 0)


@pytest.mark.parametrize("rows", [(), (square(0, iscrowd=1),)])
def test_no_truth_has_no_score(rows: tuple[dict[str, Any], ...]) -> None:
    scores = evaluate_instances(file_of(*rows), [square(0, score=0.9)])
    assert set(twelve(scores)) == {-1.0}
    assert scores.n_predictions == 1


def test_a_subset_of_images_scores_that_subset() -> None:
    truth = file_of(square(0))
    second = truth.add_image("val/b.jpg", SIZE)
    truth.add_annotations([square(0, image_id=second)])
    said = [square(0, score=0.9), square(40, image_id=second, score=0.9)]
    assert evaluate_instances(truth, said, image_ids=[1]).ap == 1
    assert evaluate_instances(truth, said, image_ids={second}).ap == 0
    assert evaluate_instances(truth, said, image_ids=[]).n_images == 0
    with pytest.raises(InputError, match=r"1 that it does not have: \[9\]"):
        evaluate_instances(truth, said, image_ids=[1, 9])


def test_truth_numbered_from_zero_is_scored_like_any_other() -> None:
    # The engine takes annotation id 0 for "unmatched" and would count it as missed.
    truth = file_of(square(0), square(60))
    for row in truth.annotations:
        row["id"] -= 1
    assert evaluate_instances(truth, [square(0, score=0.9), square(60, score=0.8)]).ap == 1


def test_truth_that_was_predicted_once_and_kept_its_scores_is_truth_still() -> None:
    truth = file_of(square(0, score=0.2), square(60, side=100, iscrowd=1, score=0.1))
    scores = evaluate_instances(truth, [square(100, score=0.9), square(0, score=0.8)])
    assert (scores.ap, scores.n_truth) == (1, 1)


def test_masks_are_understood_in_every_spelling() -> None:
    counts = [0]
    for _ in range(20):
        counts += [20, SIZE[0] - 20]  # columns from the left, 20 px of 1 at the top of each
    counts[-1] += SIZE[0] * (SIZE[1] - 20)
    plain = {"size": list(SIZE), "counts": counts}
    said = [square(0, score=0.9, segmentation=plain)]
    assert evaluate_instances(file_of(square(0)), said).ap == 1
    assert evaluate_instances(file_of(square(0, segmentation=plain)), [square(0, score=0.9)]).ap == 1
    assert evaluate_instances(file_of(square(0)), [{**said[0], "bbox": None}], iou_type="bbox").ap == 1


def test_size_in_segm_is_that_of_the_mask_not_of_the_box() -> None:
    # Two thin L shapes: the box is 100 x 100 (large), the mask 100 + 99 px (small); the second is a false alarm, which
    # counts among the small and not among the large.
    mask = np.zeros(SIZE, np.uint8)
    mask[:100, 0] = mask[99, :100] = 1
    rles = [coco_mask.encode(np.asfortranarray(m)) for m in (mask, np.roll(mask, 20, 1))]
    said = [
        {"image_id": 1, "category_id": 3, "segmentation": rle, "bbox": [0, 0, 100, 100], "score": score}
        for rle, score in zip(rles, (0.5, 0.9), strict=True)
    ]
    truth = file_of({"image_id": 1, "category_id": 3, "segmentation": rles[0], "area": 199})
    scores = evaluate_instances(truth, said)
    assert_close(scores.ap_small, 0.5)
    assert scores.ap_large is None


def test_files_are_matched_by_picture_and_class_names(tmp_path: Path) -> None:
    truth = file_of(square(0, category_id=21))
    found = CocoFile.with_categories({1: "Traffic Light"})
    found.images = [{"id": 50, "file_name": "elsewhere/val/a.jpg"}]
    found.annotations = [square(0, image_id=50, category_id=1, score=0.9, id=1)]
    found.write(tmp_path / "found.json")
    rows = read_predictions(tmp_path / "found.json", truth)
    assert [(row["image_id"], row["category_id"], row["score"]) for row in rows] == [(1, 21, 0.9)]
    assert evaluate_instances(truth, rows).ap == evaluate_instances(truth, found).ap == 1
    assert found.annotations[0]["image_id"] == 50


@pytest.mark.parametrize(
    ("name", "is_found"),
    [
        ("a.jpg", True),
        ("photos/val/a.jpg", True),
        ("/photos/val/a.jpg", True),
        ("photos\\val\\a.jpg", True),
        ("train/a.jpg", False),
        ("interval/a.jpg", False),
        ("x-a.jpg", False),
    ],
)
def test_a_name_is_matched_by_its_end_not_by_its_last_part(name: str, is_found: bool) -> None:
    found = file_of(square(0, score=1), file_name=name)
    if is_found:
        assert match_predictions(file_of(square(0)), found)[0]["image_id"] == 1
    else:
        with pytest.raises(InputError, match="images that the truth does not have"):
            match_predictions(file_of(square(0)), found)


def test_a_bare_results_list_has_the_ids_of_the_truth(tmp_path: Path) -> None:
    rows = [square(0, score=0.9)]
    (tmp_path / "bare.json").write_text("\n" + json.dumps(rows))
    assert read_predictions(tmp_path / "bare.json", file_of(square(0))) == rows
    (tmp_path / "none.json").write_text("[]")
    assert read_predictions(tmp_path / "none.json", file_of(square(0))) == []


def test_the_whole_name_is_preferred_to_its_last_part() -> None:
    truth = CocoFile.with_categories(NAMES)
    truth.add_image("a/1.jpg", SIZE), truth.add_image("b/1.jpg", SIZE)
    assert match_predictions(truth, file_of(square(0, score=1), file_name="b/1.jpg"))[0]["image_id"] == 2
    with pytest.raises(InputError, match=r"images that the truth does not have: 'c/1\.jpg'"):
        match_predictions(truth, file_of(square(0, score=1), file_name="c/1.jpg"))


def test_two_pictures_that_are_the_same_one_are_refused() -> None:
    found = file_of(file_name="x/val/a.jpg")
    found.add_image("y/val/a.jpg", SIZE)
    with pytest.raises(InputError, match=r"once, .* 'x/val/a\.jpg', 'y/val/a\.jpg'"):
        match_predictions(file_of(), found)


def test_an_unknown_class_name_is_refused_unless_names_do_not_count() -> None:
    found = file_of(square(0, category_id=1, score=0.9), names={1: "trafic light"})
    with pytest.raises(InputError, match=r"'trafic light' \(nearest .*: 'traffic light'\); the truth has 3: 'cat', 'dog'"):
        evaluate_instances(file_of(square(0)), found)
    assert evaluate_instances(file_of(square(0)), found, view="class-agnostic").ap == 1


@pytest.mark.parametrize("score", [None, "0.9", float("nan"), True])
def test_a_missing_or_odd_score_is_refused(score: object) -> None:
    with pytest.raises(InputError, match="finite score"):
        evaluate_instances(file_of(square(0)), [square(0, score=score)])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (square(0, score=1, image_id=4), "image_id 4, expected one of 1"),
        (square(0, score=1, category_id=4), "category_id 4, expected one of 3, 7, 21"),
        (square(0, score=1, segmentation=None), "expected a segmentation"),
        (square(0, score=1, segmentation={"size": [5, 5], "counts": [25]}), r"masks of \(140, 180\).* got one of \(5, 5\)"),
        ("dog", "prediction 0 as a COCO annotation, got str"),
    ],
)
def test_rows_that_cannot_be_scored_are_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate_instances(file_of(square(0)), [row])


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not JSON"), ("[", "not JSON"), ("{}", "with images"), (None, "cannot be read")]
)
def test_files_that_are_no_predictions_are_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "found.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_predictions(path, file_of())


@pytest.mark.parametrize("part", ["height", "width"])
def test_truth_without_picture_sizes_is_refused(part: Literal["height", "width"]) -> None:
    truth = file_of(square(0))
    del truth.images[0][part]
    with pytest.raises(InputError, match=r"height and width .* 'val/a\.jpg'"):
        evaluate_instances(truth, [])


def test_the_table_has_percent_with_one_decimal_and_a_dash_for_nothing() -> None:
    scores = evaluate_instances(file_of(square(0), square(60)), [square(0, score=0.9)])
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(as_table({"zip": scores}, "emoji world"))
    text = console.export_text()
    line = next(line for line in text.splitlines() if "zip" in line)
    assert "emoji world" in text
    assert line.replace("│", " ").split() == ["zip", *["50.5"] * 4, "-", "-", *["50.0"] * 3, "1", "2", "1"]


def test_json_has_fractions_and_null() -> None:
    scores = evaluate_instances(file_of(square(0)), [square(0, score=0.9)])
    plain = json.loads(json.dumps(to_json_dict({"zip": scores}), allow_nan=False))["zip"]
    assert (plain["ap"], plain["ap_large"], plain["n_truth"]) == (1.0, None, 1)
    assert set(plain) == {*FIELDS, "n_images", "n_truth", "n_predictions", "max_detections"}
