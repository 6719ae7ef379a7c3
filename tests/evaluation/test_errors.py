"""Precision over recall, scores of classes and groups, and mistakes: against pycocotools and against a case made by hand."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tests.support.pages import HOSTILE, Page, assert_strict

from annofree.datasets.benchmarks.coco_ovd import BASE_48, NOVEL_17, select_coco_48_17
from annofree.datasets.names import COCO_IDS, COCO_NAMES
from annofree.errors import InputError
from annofree.evaluation.metrics.errors import KINDS, find_mistakes
from annofree.evaluation.metrics.instance import IouType, count_instances, evaluate_instances
from annofree.evaluation.metrics.precision_recall import compute_precision_curve, draw_curves
from annofree.evaluation.protocols.instance import find_instance_protocol
from annofree.evaluation.reports.error_page import write_mistakes_page
from annofree.formats.coco import CocoFile
from annofree.structures import Image
from annofree.testing.tolerances import assert_close

SIZE = (120, 160)
NAMES = {9: "cat", 3: "dog", 21: "bus"}  # the order of ids is not that of the file
Rows = list[dict[str, Any]]


def shape(x: float, y: float, w: float, h: float) -> dict[str, Any]:
    """An annotation that is a rectangle, as a mask and as a box, on whole pixels."""
    mask = np.zeros(SIZE, np.uint8)
    mask[round(y) : round(y + h), round(x) : round(x + w)] = 1
    rle = coco_mask.encode(np.asfortranarray(mask))
    drawn = {"size": list(SIZE), "counts": rle["counts"].decode("ascii")}
    return {"segmentation": drawn, "bbox": coco_mask.toBbox(rle).tolist(), "area": float(mask.sum())}


def random_case(seed: int) -> tuple[CocoFile, Rows]:
    """Truth with crowds and a class without truth, and predictions: moved copies, wrong names, false alarms, many ties."""
    rng = np.random.default_rng(seed)
    truth, said = CocoFile.with_categories({**NAMES, 40: "never"}), []
    for n in range(6):
        image_id = truth.add_image(f"{n}.jpg", SIZE)
        for _ in range(rng.integers(0, 7)):
            box = np.array([*rng.uniform(0, 80, 2), *rng.uniform(10, 60, 2)])
            row = {"image_id": image_id, "category_id": int(rng.choice(list(NAMES)))}
            truth.add_annotations([{**row, "iscrowd": int(rng.random() < 0.25), **shape(*box)}])
            for _ in range(rng.integers(0, 4)):
                named = row["category_id"] if rng.random() < 0.8 else int(rng.choice([*NAMES, 40]))
                moved = np.maximum(box + rng.normal(0, 3, 4), 3)
                said.append({"image_id": image_id, "category_id": named, **shape(*moved)})
    said.append({"image_id": 1, "category_id": 40, **shape(0, 0, 30, 30)})
    scores = np.round(rng.random(len(said)), 1).tolist()
    return truth, [{**row, "score": score} for row, score in zip(said, scores, strict=True)]


def oracle(truth: CocoFile, said: Rows, iou_type: IouType) -> COCOeval:
    rows = [{k: v for k, v in row.items() if k != "bbox" or iou_type == "bbox"} for row in said]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": truth.images, "categories": truth.categories, "annotations": truth.annotations}
        coco.createIndex()
        theirs = COCOeval(coco, coco.loadRes(rows), iou_type)
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    return theirs


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("seed", range(4))
def test_counts_curves_and_twelve_numbers_are_those_of_pycocotools(seed: int, iou_type: IouType) -> None:
    truth, said = random_case(seed)
    theirs, ours = oracle(truth, said, iou_type), count_instances(truth, said, iou_type=iou_type)
    assert ours.names == ("dog", "cat", "bus", "never")
    assert_close(ours.precision, theirs.eval["precision"])
    assert_close(ours.recall, theirs.eval["recall"])
    twelve = [-1.0 if value is None else value for value in astuple(ours.compute_scores())[:12]]
    assert_close(twelve, theirs.stats)
    assert 0 < twelve[0] < 1
    curve = compute_precision_curve(ours, 0.75)
    assert curve is not None
    assert_close(curve, theirs.eval["precision"][5, :, :3, 0, 2].mean(1))
    assert_close(curve.mean(), ours.compute_scores().ap75)


@pytest.mark.parametrize("seed", range(3))
def test_scores_of_a_class_and_of_a_group_are_those_of_the_file_with_these_alone(seed: int) -> None:
    truth, said = random_case(seed)
    counted = count_instances(truth, said)
    for names in (["dog"], ["cat", "bus"], list(NAMES.values())):
        ids = {id_ for id_, name in NAMES.items() if name in names}
        alone = CocoFile(truth.images, [row for row in truth.categories if row["id"] in ids])
        alone.annotations = [row for row in truth.annotations if row["category_id"] in ids]
        scores = evaluate_instances(alone, [row for row in said if row["category_id"] in ids])
        assert astuple(counted.compute_scores(names)) == pytest.approx(astuple(scores))
    assert counted.score_classes()["dog"] == counted.compute_scores(["dog"])
    assert counted.score_classes()["never"].ap is None and counted.score_classes()["never"].n_predictions > 0
    with pytest.raises(InputError, match="unknown class 'dogs'; did you mean 'dog'"):
        counted.compute_scores(["dogs"])


def test_curves_are_drawn_with_their_ap_and_refuse_other_ious() -> None:
    truth, said = random_case(1)
    counted = count_instances(truth, said)
    drawn = draw_curves(counted, "<boxes>", (0.5, 0.9))
    assert drawn.count("<polyline") == 2 and "&lt;boxes&gt;" in drawn
    assert f"IoU 0.50: AP {100 * (counted.compute_scores().ap50 or 0):.1f}" in drawn
    first = re.findall(r'points="([\d.]+),([\d.]+)', drawn)
    assert first[0] == ("44.0", f"{26 + 300 * (1 - counted.precision[0, 0, :3, 0, 2].mean()):.1f}")
    assert compute_precision_curve(counted, 0.5, "never") is None
    with pytest.raises(InputError, match=r"IoUs 0.50, 0.55 .. 0.95, got 0.6[23]"):
        compute_precision_curve(counted, 0.62)


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("seed", range(6))
def test_mistakes_are_what_pycocotools_leaves_unmatched(seed: int, iou_type: IouType) -> None:
    truth, said = random_case(seed)
    found, theirs = find_mistakes(truth, said, iou_type=iou_type), oracle(truth, said, iou_type)
    missed, alarms, right = set(), [], 0
    for seen in theirs.evalImgs:
        if seen is None or seen["aRng"] != theirs.params.areaRng[0]:
            continue
        solid = ~seen["gtIgnore"].astype(bool)
        missed |= {id_ for id_, by, ok in zip(seen["gtIds"], seen["gtMatches"][0], solid, strict=True) if ok and not by}
        kept = ~seen["dtIgnore"][0].astype(bool)
        alarms += [s for s, of, ok in zip(seen["dtScores"], seen["dtMatches"][0], kept, strict=True) if ok and not of]
        right += int(((seen["dtMatches"][0] > 0) & kept).sum())
    assert {m.row["id"] for m in found.misses} == missed and len(found.misses) == len(missed)
    assert [m.score for m in found.false_alarms] == sorted(alarms, reverse=True)
    assert found.right == right > 0 and missed


def by_hand() -> tuple[CocoFile, Rows]:
    """One image with each kind of mistake; the boxes of one line do not meet those of another."""
    truth = CocoFile.with_categories(NAMES)
    image_id = truth.add_image("a.jpg", SIZE)

    def row(name: str, *box: float, **more: Any) -> dict[str, Any]:
        number = next(id_ for id_, n in NAMES.items() if n == name)
        return {"image_id": image_id, "category_id": number, **shape(*box), **more}

    truth.add_annotations(
        [
            row("dog", 0, 0, 20, 20),
            row("cat", 40, 0, 20, 30),
            row("dog", 80, 0, 20, 20),
            row("bus", 0, 60, 30, 30),
            row("bus", 60, 60, 40, 40, iscrowd=1),
            row("cat", 120, 60, 30, 40),
        ]
    )
    said = [
        row("dog", 0, 0, 20, 20, score=0.9),  # right
        row("dog", 0, 0, 20, 18, score=0.8),  # taken
        row("dog", 40, 0, 20, 30, score=0.7),  # class
        row("dog", 90, 0, 20, 20, score=0.6),  # location: IoU 1/3
        row("cat", 20, 60, 20, 30, score=0.5),  # both: IoU 1/4
        row("bus", 0, 105, 10, 10, score=0.4),  # nothing
        row("bus", 65, 65, 20, 20, score=0.95),  # on a crowd: neither
    ]
    return truth, said


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_each_kind_of_mistake_by_hand(iou_type: IouType) -> None:
    found = find_mistakes(*by_hand(), iou_type=iou_type)
    assert found.right == 1
    told = [(m.name, m.kind, m.score, round(m.overlap, 2)) for m in found.false_alarms]
    assert told == [
        ("dog", "taken", 0.8, 0.9),
        ("dog", "class", 0.7, 1.0),
        ("dog", "location", 0.6, 0.33),
        ("cat", "both", 0.5, 0.25),
        ("bus", "nothing", 0.4, 0.0),
    ]
    missed = [(m.name, m.kind, m.area) for m in found.misses]  # the largest first
    assert missed == [("cat", "nothing", 1200), ("bus", "both", 900), ("cat", "class", 600), ("dog", "location", 400)]
    assert found.count_kinds() == {"taken": (1, 0), "class": (1, 1), "location": (1, 1), "both": (1, 1), "nothing": (1, 1)}
    assert found.count_kinds().keys() == KINDS.keys()


def test_an_answer_over_two_leaves_the_other_taken_and_names_may_not_count() -> None:
    truth = CocoFile.with_categories(NAMES)
    row = {"image_id": truth.add_image("a.jpg", SIZE), "category_id": 3}
    truth.add_annotations([{**row, **shape(0, 0, 20, 20)}, {**row, **shape(0, 0, 20, 16)}])
    (miss,) = find_mistakes(truth, [{**row, **shape(0, 0, 20, 18), "score": 0.5}]).misses
    assert (miss.kind, miss.words) == ("taken", "the answer there belongs to another instance")
    wrong = [{**row, **shape(0, 0, 20, 20), "score": 0.5, "category_id": 9}]
    assert find_mistakes(truth, wrong).right == 0
    assert find_mistakes(truth, wrong, view="class-agnostic").right == 1
    assert len(find_mistakes(truth, wrong, min_score=0.6).misses) == 2


def test_the_page_shows_the_worst_of_each_class_and_is_replaced_only_by_itself(tmp_path: Path) -> None:
    truth, said = by_hand()
    counted, found = count_instances(truth, said), find_mistakes(truth, said)
    pixels = np.full((*SIZE, 3), 90, np.uint8)
    out, groups = tmp_path / "page", {"novel": counted.compute_scores(["cat"])}
    index = write_mistakes_page(out, truth, counted, found, title="Dogs & co", groups=groups, image=lambda name: Image(pixels))
    text = index.read_text(encoding="utf-8")
    crops = sorted(path.name for path in (out / "crops").iterdir())
    assert len(crops) == 9 == text.count("<img ") and text.count("Largest misses") == 3
    assert (
        "Dogs &amp; co" in text
        and "novel" in text
        and "<script" not in text
        and "http://" not in text.replace("w3.org", "")[:200]
    )
    assert "another class, overlapping too little (overlap 0.25)" in text
    assert (out / "curves.svg").read_text(encoding="utf-8") in text
    assert_strict(Page(text))
    again = write_mistakes_page(out, truth, counted, found, title="again", each=1, classes=1).read_text(encoding="utf-8")
    assert "2 more with fewer mistakes" in again and "no image" in again
    assert not list((out / "crops").iterdir())
    (out / "mine.txt").touch()
    with pytest.raises(InputError, match="new or empty folder"):
        write_mistakes_page(out, truth, counted, found, title="again")


def test_the_crop_shows_the_truth_green_and_the_answer_orange(tmp_path: Path) -> None:
    truth, said = by_hand()
    found = find_mistakes(truth, said)
    image = np.zeros((*SIZE, 3), np.uint8)
    write_mistakes_page(
        tmp_path / "p", truth, count_instances(truth, said), found, title="t", image=lambda name: Image(image), each=1
    )
    shown = {}
    for path in sorted((tmp_path / "p" / "crops").iterdir()):
        red, green, _ = np.asarray(PIL.Image.open(path), int).transpose(2, 0, 1)
        shown[path.name] = (bool(((green - red) > 80).any()), bool(((red - green) > 60).any()))
    assert (True, True) in shown.values() and len(shown) == 6  # the largest miss and the surest alarm of three classes
    assert (True, False) in shown.values()  # the cat that nothing was said of
    assert (False, True) in shown.values()  # the bus where nothing is


def test_hostile_names_stay_text_on_the_page(tmp_path: Path) -> None:
    truth = CocoFile.with_categories({1: HOSTILE, 2: "</style><img src=x onerror=y>"})
    row = {"image_id": truth.add_image(HOSTILE, SIZE), "category_id": 1, **shape(0, 0, 20, 20)}
    truth.add_annotations([row])
    said = [{**row, "category_id": 2, "score": 0.5}]
    found = find_mistakes(truth, said)
    index = write_mistakes_page(tmp_path / "p", truth, count_instances(truth, said), found, title=HOSTILE)
    page = Page.read(index)
    assert_strict(page)
    assert not page.of("script") and not page.of("img") and '<script>alert("x")</script>' in page.text


def coco_of_80() -> CocoFile:
    truth = CocoFile.with_categories(dict(zip(COCO_IDS, COCO_NAMES, strict=True)))
    for name in ("airplane", "person", "traffic light"):
        image_id = truth.add_image(f"{name}.jpg", SIZE)
        truth.add_annotations([{"image_id": image_id, "category_id": COCO_IDS[COCO_NAMES.index(name)], **shape(0, 0, 40, 40)}])
    return truth


def test_the_split_of_open_vocabulary_detection() -> None:
    assert (len(NOVEL_17), len(BASE_48), len({*NOVEL_17, *BASE_48})) == (17, 48, 65)
    assert {*NOVEL_17, *BASE_48} < set(COCO_NAMES)
    numbers = [COCO_IDS[COCO_NAMES.index(name)] for name in NOVEL_17]
    assert numbers == [5, 6, 17, 18, 21, 22, 28, 32, 36, 41, 47, 49, 61, 63, 76, 81, 87]
    assert [row["file_name"] for row in select_coco_48_17(coco_of_80()).images] == ["airplane.jpg", "person.jpg"]


def test_the_protocol_of_open_vocabulary_detection_scores_boxes_of_both_groups(tmp_path: Path) -> None:
    coco_of_80().write(tmp_path / "val.json")
    rules = find_instance_protocol("coco-48-17")
    truth = rules.read_truth({"truth": tmp_path / "val.json"})
    answer = {"image_id": 1, "category_id": 5, "bbox": [0, 0, 40, 40], "score": 0.5}  # no mask: boxes are scored
    groups = rules.group_scores(truth, CocoFile(truth.images, truth.categories, [answer]))
    assert {name: scores.ap50 for name, scores in groups.items()} == {"novel": 1.0, "base": 0.0}
    assert rules.compute_scores(truth, CocoFile(truth.images, truth.categories, [answer]))["class-aware"].ap50 == 0.5
    assert find_instance_protocol("coco-instances").group_scores(truth, CocoFile()) == {}
