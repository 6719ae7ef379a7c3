"""Where quality is lost: cases painted by hand, a slow twin, pycocotools on the fixed rows, and what holds of any input."""

from __future__ import annotations

import contextlib
import copy
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from annofree.errors import InputError
from annofree.evaluation.metrics.answer import evaluate_answer
from annofree.evaluation.metrics.instance import evaluate_instances
from annofree.evaluation.metrics.oracles import FIXES, Fix, OracleSplit, evaluate_oracles, fix_rows
from annofree.evaluation.metrics.predictions import read_mask_rle
from annofree.evaluation.metrics.shapes import IouType, compute_box
from annofree.evaluation.reports.instance import describe_candidates, format_oracle_rows, format_oracle_texts, to_json_dict
from annofree.formats.annotations import Annotation
from annofree.formats.coco import CocoFile
from annofree.ops.rle import decode_rle
from annofree.testing.obvious_oracles import assign_obvious_names, choose_obvious_masks, score_obvious_order
from annofree.testing.tolerances import assert_close

SIZE = (100, 120)
NAMES = {9: "cat", 3: "dog", 21: "bus"}  # the order of ids is not that of the file
DOG, CAT = 3, 9
Rows = list[dict[str, Any]]
KINDS: tuple[IouType, ...] = ("segm", "bbox")


def shape(x: float, y: float, w: float, h: float, category: int = DOG, image: int = 1, **more: Any) -> dict[str, Any]:
    """An annotation that is a rectangle on whole pixels, as a mask and as a box."""
    mask = np.zeros(SIZE, np.uint8)
    mask[round(y) : round(y + h), round(x) : round(x + w)] = 1
    rle = coco_mask.encode(np.asfortranarray(mask))
    drawn = {"size": list(SIZE), "counts": rle["counts"].decode("ascii")}
    row = {"image_id": image, "category_id": category, "segmentation": drawn, "bbox": coco_mask.toBbox(rle).tolist()}
    return {**row, "area": float(mask.sum()), **more}


def placed(box: npt.NDArray[np.float64], category: int, image: int, **more: Any) -> dict[str, Any]:
    x, y, w, h = box.tolist()
    return shape(x, y, w, h, category, image, **more)


def truth_of(*rows: dict[str, Any], images: int = 1) -> CocoFile:
    file = CocoFile.with_categories(NAMES)
    for number in range(images):
        file.add_image(f"{number}.jpg", SIZE)
    file.add_annotations(rows)
    return file


def random_case(seed: int, images: int = 4) -> tuple[CocoFile, Rows]:
    """Truth that overlaps, with crowds, and predictions: moved copies, wrong names, false alarms, duplicates, ties."""
    rng = np.random.default_rng(seed)
    truth, said = CocoFile.with_categories({**NAMES, 40: "never"}), []
    for image_id in rng.permutation(images) + 5:  # ids are in no order
        truth.images.append({"id": int(image_id), "file_name": f"{image_id}.jpg", "height": SIZE[0], "width": SIZE[1]})
        for _ in range(rng.integers(0, 6)):
            box = np.array([*rng.uniform(0, 60, 2), *rng.uniform(8, 40, 2)])
            class_ = int(rng.choice(list(NAMES)))
            crowd = int(rng.random() < 0.25)
            truth.add_annotations([placed(box, class_, int(image_id), iscrowd=crowd)])
            for _ in range(rng.integers(0, 5)):
                named = class_ if rng.random() < 0.6 else int(rng.choice([*NAMES, 40]))
                moved = np.maximum(box + rng.normal(0, 5, 4), 3)
                said.append(placed(moved, named, int(image_id)))
    said.append(shape(0, 0, 30, 30, 40, int(truth.images[0]["id"])))
    scores = np.round(rng.random(len(said)), 1).tolist()
    return truth, [{**row, "score": score} for row, score in zip(said, scores, strict=True)]


def pycocotools_ap(truth: CocoFile, said: Rows, iou_type: IouType, limit: int = 100) -> float:
    rows = [{k: v for k, v in row.items() if k != "bbox" or iou_type == "bbox"} for row in copy.deepcopy(said)]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": truth.images,
            "categories": truth.categories,
            "annotations": copy.deepcopy(truth.annotations),
        }
        coco.createIndex()
        theirs = COCOeval(coco, coco.loadRes(rows), iou_type)
        theirs.params.maxDets = [limit]
        theirs.evaluate()
        theirs.accumulate()
    precision = theirs.eval["precision"][:, :, :, 0, 0]
    return float(precision[precision > -1].mean())


def told(split: OracleSplit) -> dict[str, tuple[float | None, float | None]]:
    return {"": (split.ap, split.f1), **{fix: (oracle.ap, oracle.f1) for fix, oracle in split.oracles.items()}}


def assert_told(split: OracleSplit, **expected: tuple[float, float]) -> None:
    for name, values in expected.items():
        assert_close(told(split)["" if name == "plain" else name], values, message=name)


# By hand


@pytest.mark.parametrize("iou_type", KINDS)
def test_true_names_by_hand(iou_type: IouType) -> None:
    truth = truth_of(shape(0, 0, 20, 20, DOG), shape(40, 0, 20, 20, CAT))
    said = [shape(0, 0, 20, 20, CAT, score=0.9), shape(40, 0, 20, 20, CAT, score=0.8)]
    split = evaluate_oracles(truth, said, iou_type=iou_type)
    # No dog is said; of the cats the first is a false alarm: precision is 1/2.  In order it is 1.
    assert_told(split, plain=(0.25, 0.5), names=(1, 1), masks=(0.25, 0.5), order=(0.5, 0.5), all=(1, 1))
    assert split.candidate_recall == 1 and split.n_truth == 2
    assert_close(split.oracles["names"].ap_gain, 0.75)
    assert_close(split.oracles["order"].f1_gain, 0.0)


@pytest.mark.parametrize("iou_type", KINDS)
def test_best_masks_by_hand(iou_type: IouType) -> None:
    truth = truth_of(shape(0, 0, 20, 20, DOG))
    said = [shape(0, 0, 20, 12, DOG, score=0.9), shape(0, 0, 20, 20, CAT, score=0.8)]
    split = evaluate_oracles(truth, said, iou_type=iou_type)
    # The dog's IoU of 0.6 passes three of ten.  With true names a dog that fits comes after one that fits three times of ten.
    assert_told(split, plain=(0.3, 2 / 3), names=(0.65, 2 / 3), masks=(1, 2 / 3), order=(0.3, 2 / 3), all=(1, 2 / 3))


@pytest.mark.parametrize("iou_type", KINDS)
def test_perfect_order_by_hand(iou_type: IouType) -> None:
    truth = truth_of(shape(0, 0, 20, 20), shape(40, 0, 20, 20))
    said = [shape(80, 60, 9, 9, score=0.9), shape(0, 0, 20, 20, score=0.8), shape(40, 0, 20, 20, score=0.7)]
    split = evaluate_oracles(truth, said, iou_type=iou_type)
    assert_told(split, plain=(2 / 3, 0.8), names=(2 / 3, 0.8), masks=(2 / 3, 0.8), order=(1, 0.8), all=(1, 0.8))


def test_a_mask_that_is_near_nothing_of_its_name_is_kept_and_one_that_is_near_is_not() -> None:
    truth = truth_of(shape(0, 0, 20, 20, DOG), shape(40, 0, 20, 20, CAT))
    best = shape(0, 0, 20, 20, CAT, score=0.1)
    for width, moved in ((2, True), (1, False)):  # an IoU of 0.1 and of 0.05
        rows = fix_rows(truth, [shape(0, 0, width, 20, DOG, score=0.9), best], "masks")
        assert (rows[0]["segmentation"] == best["segmentation"]) is moved
        assert rows[0]["category_id"] == DOG and rows[0]["score"] == 0.9
    assert rows[1] == best


def test_names_that_make_duplicates_do_harm_and_are_left_as_they_are() -> None:
    truth = truth_of(shape(0, 0, 20, 20), shape(40, 0, 20, 20))
    on_one = [shape(0, 0, 20, 20, CAT, score=score) for score in (0.9, 0.8)]
    said = [*on_one, shape(0, 0, 20, 20, score=0.7), shape(40, 0, 20, 20, score=0.6)]
    assert_close(evaluate_instances(truth, fix_rows(truth, said, "names")).ap, (51 + 50 * 0.5) / 101)
    split = evaluate_oracles(truth, said)
    assert split.ap == split.oracles["names"].ap == split.oracles["all"].ap == 1
    assert split.oracles["names"].ap_gain == 0


def test_crowds_give_names_and_are_no_place_for_masks() -> None:
    truth = truth_of(shape(0, 0, 20, 20, DOG), shape(40, 0, 60, 60, CAT, iscrowd=1), shape(38, 0, 20, 20, CAT))
    said = [
        shape(70, 30, 10, 10, DOG, score=0.9),  # in the crowd of cats, called a dog: a false alarm
        shape(0, 0, 20, 20, DOG, score=0.8),
        shape(50, 0, 20, 20, CAT, score=0.7),  # in the crowd, and near the cat that is alone: an IoU of 1/4
        shape(38, 0, 20, 20, CAT, score=0.6),
    ]
    assert [row["category_id"] for row in fix_rows(truth, said, "names")] == [CAT, DOG, CAT, CAT]
    assert fix_rows(truth, said, "masks") == said
    # Dogs are 1/2 as the false alarm comes first, and 1 when it is a cat of the crowd; cats are 1.
    assert_told(evaluate_oracles(truth, said), plain=(0.75, 0.8), names=(1, 1), masks=(0.75, 0.8), all=(1, 1))
    assert evaluate_oracles(truth, said).n_truth == 2


def test_a_name_among_several_that_fit_equally_is_kept() -> None:
    truth = truth_of(shape(0, 0, 20, 20, DOG), shape(0, 0, 20, 20, CAT))
    said = [shape(0, 0, 20, 20, name, score=0.5) for name in (CAT, DOG)]
    assert fix_rows(truth, said, "names") == said
    assert fix_rows(truth, [shape(0, 0, 20, 20, 21, score=0.5)], "names")[0]["category_id"] == DOG


def test_the_limit_holds_after_a_fix_as_before_it() -> None:
    truth = truth_of(shape(0, 0, 20, 20), shape(40, 0, 20, 20))
    said = [shape(80, 60, 9, 9, score=0.9), shape(0, 0, 20, 20, score=0.8), shape(40, 0, 20, 20, score=0.7)]
    one = evaluate_oracles(truth, said, max_detections=1)
    assert_told(one, plain=(0, 0.8), order=(51 / 101, 0.8), all=(51 / 101, 0.8))
    assert_told(evaluate_oracles(truth, said, max_detections=2), plain=(51 / 101 / 2, 0.8), order=(1, 0.8))


def test_a_subset_of_images_scores_that_subset() -> None:
    truth = truth_of(shape(0, 0, 20, 20), shape(0, 0, 20, 20, image=2), images=2)
    said = [shape(0, 0, 20, 20, CAT, score=0.9), shape(0, 0, 20, 20, image=2, score=0.8)]
    assert evaluate_oracles(truth, said, image_ids=[2]).ap == 1
    assert evaluate_oracles(truth, said, image_ids=[1]).oracles["names"].ap_gain == 1
    assert len(fix_rows(truth, said, "all", image_ids=[1])) == 1


def test_nothing_said_and_nothing_true() -> None:
    truth = truth_of(shape(0, 0, 20, 20))
    nothing = evaluate_oracles(truth, [])
    assert_told(nothing, plain=(0, 0), **dict.fromkeys(FIXES, (0, 0)))
    assert nothing.candidate_recall == 0
    for file in (truth_of(), truth_of(shape(0, 0, 20, 20, iscrowd=1)), CocoFile.with_categories(NAMES)):
        said = [shape(50, 50, 20, 20, score=0.9)] if file.images else []
        empty = evaluate_oracles(file, said)
        assert empty.ap is empty.candidate_recall is empty.oracles["all"].ap_gain is None
        assert format_oracle_rows(empty, "segm")[1][1:3] == ("-", "-")


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(InputError, match="unknown fix 'name'; did you mean 'names'"):
        fix_rows(truth_of(), [], "name")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1 to 10,000 detections"):
        evaluate_oracles(truth_of(), [], max_detections=0)
    with pytest.raises(InputError, match="expected a segmentation"):
        evaluate_oracles(truth_of(shape(0, 0, 9, 9)), [{**shape(0, 0, 9, 9, score=0.5), "segmentation": None}])


def test_it_is_told_to_people_and_to_programs() -> None:
    truth = truth_of(shape(0, 0, 20, 20, DOG), shape(40, 0, 20, 20, CAT))
    split = evaluate_oracles(truth, [shape(0, 0, 20, 20, CAT, score=0.9), shape(40, 0, 20, 20, CAT, score=0.8)])
    rows = format_oracle_rows(split, "bbox")
    assert [row[0] for row in rows] == ["as it is", "true names", "best boxes", "perfect order", "all together"]
    assert rows[1][1:5] == ("100.0", "+75.0", "100.0", "+50.0")
    (caption,), heads, *texts = format_oracle_texts(split, "segm")
    assert caption == describe_candidates(split) and "overlaps 100.0 % by IoU 0.5" in caption
    assert {len(text) for text in texts} == {len(heads)} and texts[2][0].startswith("best masks: ")
    plain = to_json_dict({"oracles": split})["oracles"]
    assert plain["oracles"]["names"] == {"ap": 1.0, "f1": 1.0, "ap_gain": 0.75, "f1_gain": 0.5}
    assert (plain["ap"], plain["candidate_recall"], plain["n_truth"]) == (0.25, 1.0, 2)


# Against others


def things(rows: Rows, names: dict[int, str], iou_type: IouType) -> list[Annotation]:
    masks = [decode_rle(read_mask_rle(row, SIZE)) for row in rows]
    return [
        Annotation.of_mask(names[row["category_id"]], mask, row.get("score"), bool(row.get("iscrowd", 0)))
        for row, mask in zip(rows, masks, strict=True)
    ]


@pytest.mark.parametrize("iou_type", KINDS)  # rectangles on whole pixels: masks and boxes are the same
@pytest.mark.parametrize("seed", range(6))
def test_fixes_are_those_of_the_slow_twin(seed: int, iou_type: IouType) -> None:
    truth, said = random_case(seed, images=7)
    before = copy.deepcopy((truth, said))
    names = {row["id"]: row["name"] for row in truth.categories}
    twins = {"names": [assign_obvious_names], "masks": [choose_obvious_masks], "order": [score_obvious_order]}
    twins["all"] = [assign_obvious_names, choose_obvious_masks, score_obvious_order]
    changes = dict.fromkeys(FIXES, 0)
    for image in truth.images:
        own, real = ([row for row in rows if row["image_id"] == image["id"]] for rows in (said, truth.annotations))
        for fix in FIXES:
            ours = fix_rows(truth, said, fix, iou_type=iou_type, image_ids=[image["id"]])
            theirs = things(own, names, iou_type)
            for twin in twins[fix]:
                theirs = twin(theirs, things(real, names, iou_type))
            assert [names[row["category_id"]] for row in ours] == [thing.name for thing in theirs]
            assert [read_mask_rle(row, SIZE)["counts"] for row in ours] == [_counts(thing) for thing in theirs]
            assert [compute_box(row, SIZE) for row in ours] == [_box(thing) for thing in theirs]
            if fix in ("order", "all"):
                right = [thing.score or 0.0 for thing in theirs]
                assert_close([r["score"] for r, s in zip(ours, right, strict=True) if s > 1], [s for s in right if s > 1])
                assert [r["score"] > 1 for r in ours] == [s > 1 for s in right]
            changes[fix] += sum(a != b for a, b in zip(ours, own, strict=True))
    assert all(changes.values()) and (truth, said) == before


def _counts(thing: Annotation) -> Any:
    assert thing.rle is not None
    counts = thing.rle["counts"]
    return counts.decode("ascii") if isinstance(counts, bytes) else counts


def _box(thing: Annotation) -> list[float]:
    x0, y0, x1, y1 = thing.box
    return [float(v) for v in (x0, y0, x1 - x0, y1 - y0)]


@pytest.mark.parametrize("limit", [1, 2, 100])
@pytest.mark.parametrize("iou_type", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_figures_are_those_of_the_fixed_rows_by_our_scores_and_by_pycocotools(seed: int, iou_type: IouType, limit: int) -> None:
    truth, said = random_case(seed)
    split = evaluate_oracles(truth, said, iou_type=iou_type, max_detections=limit)
    scored: dict[str, tuple[float, float]] = {}
    fixes: tuple[Fix | None, ...] = (None, *FIXES)
    for fix in fixes:
        rows = said if fix is None else fix_rows(truth, said, fix, iou_type=iou_type)
        ap = evaluate_instances(truth, rows, iou_type=iou_type, max_detections=limit).ap
        f1 = evaluate_answer(truth, rows, iou_type=iou_type).f1
        assert ap is not None and f1 is not None
        assert_close(ap, pycocotools_ap(truth, rows, iou_type, limit))
        scored[fix or ""] = ap, f1
    plain = scored.pop("")
    assert_close((split.ap, split.f1), plain)
    for fix_, oracle in split.oracles.items():
        own = list(scored.values()) if fix_ == "all" else [scored[fix_]]
        assert_close((oracle.ap, oracle.f1), [max(column) for column in zip(plain, *own, strict=True)])
    assert any(oracle.ap_gain for oracle in split.oracles.values())


# Of any input


def test_masks_and_order_lower_no_ap_and_names_do_at_times() -> None:
    lowered: dict[Fix, int] = dict.fromkeys(FIXES, 0)
    for seed in range(80):
        truth, said = random_case(seed)
        plain = evaluate_instances(truth, said).ap
        for fix in FIXES:
            ap = evaluate_instances(truth, fix_rows(truth, said, fix)).ap
            lowered[fix] += ap is not None and plain is not None and ap < plain - 1e-9
    assert lowered["masks"] == lowered["order"] == lowered["all"] == 0 < lowered["names"] < 20


@given(st.integers(0, 10_000), st.sampled_from(KINDS), st.sampled_from([1, 3, 100]))
@settings(max_examples=40, deadline=None)
def test_no_fix_loses_and_all_together_gain_the_most(seed: int, iou_type: IouType, limit: int) -> None:
    truth, said = random_case(seed, images=2)
    split = evaluate_oracles(truth, said, iou_type=iou_type, max_detections=limit)
    if split.ap is None:
        return
    assert split.f1 is not None and split.candidate_recall is not None
    most = split.oracles["all"]
    for oracle in split.oracles.values():
        assert oracle.ap is not None and oracle.f1 is not None and most.ap is not None and most.f1 is not None
        assert split.ap <= oracle.ap <= most.ap <= 1 and split.f1 <= oracle.f1 <= most.f1 <= 1


@given(st.integers(0, 10_000), st.sampled_from(KINDS))
@settings(max_examples=25, deadline=None)
def test_perfect_input_gains_nothing(seed: int, iou_type: IouType) -> None:
    truth, _ = random_case(seed, images=2)
    solid = [row for row in truth.annotations if not row["iscrowd"]]
    said = [{**row, "score": 0.5} for row in solid]
    split = evaluate_oracles(truth, said, iou_type=iou_type)
    if solid:
        assert split.ap == split.f1 == split.candidate_recall == 1
        assert {gain for o in split.oracles.values() for gain in (o.ap_gain, o.f1_gain)} == {0.0}


@pytest.mark.parametrize("seed", range(8))
def test_of_instances_apart_the_order_gives_the_recall_and_all_fixes_the_candidates(seed: int) -> None:
    """Where no prediction fits two instances, no choice is needed: perfect order is worth the recall, rounded to 1/101."""
    rng = np.random.default_rng(seed)
    places = [(x, y) for x in (0, 40, 80) for y in (0, 35, 70)]
    truth = truth_of(*(shape(x, y, 25, 25, int(rng.choice([DOG, CAT]))) for x, y in places[:7]))
    said: Rows = []
    for x, y in rng.permutation(places * 2)[:12].tolist():
        moved = rng.integers(0, 9, 2).tolist()
        said.append(shape(x + moved[0], y, 25, 25 - moved[1], int(rng.choice([DOG, CAT])), score=float(rng.random())))
    split = evaluate_oracles(truth, said)
    recall = evaluate_instances(truth, said).ar
    assert recall is not None and split.oracles["order"].ap is not None
    assert abs(split.oracles["order"].ap - recall) <= 1 / 101
    best = evaluate_instances(truth, fix_rows(truth, said, "all"))
    reached = [max(0.0, *(n for n in _ious(row, said))) >= 0.5 for row in truth.annotations]
    assert split.candidate_recall == np.mean(reached)
    of_class = {c: [r for r, row in zip(reached, truth.annotations, strict=True) if row["category_id"] == c] for c in NAMES}
    shares = [np.mean(hits) for hits in of_class.values() if hits]
    assert best.ap50 is not None and abs(best.ap50 - float(np.mean(shares))) <= 1 / 101


def _ious(row: dict[str, Any], said: Rows) -> list[float]:
    masks = [read_mask_rle(other, SIZE) for other in said]
    return [float(v) for v in coco_mask.iou(masks, [read_mask_rle(row, SIZE)], [0])[:, 0]]


def test_the_example_of_the_page_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if re.search(r"print\(.*\)  # ", c)]
    monkeypatch.chdir(root)
    exec(code, {})
    assert capsys.readouterr().out.strip() == re.findall(r"print\(.*\)  # (.*)", code)[0]
