"""``annofree evaluate`` of instances: where quality is lost, boxes, limits, and images without predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.cli import Cli

from annofree.formats.coco import CocoFile

SQUARES = ((0, "dog"), (40, "dog"), (0, "cat"))
"""Where the instances of three images are, and of what class."""


def square(x: float, category: int, image: int, **more: Any) -> dict[str, Any]:
    drawn = [[x, 0, x + 20, 0, x + 20, 20, x, 20]]
    return {"image_id": image, "category_id": category, "bbox": [x, 0, 20, 20], "segmentation": drawn, "iscrowd": 0, **more}


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    file = CocoFile.with_categories({1: "dog", 2: "cat"})
    for number, (x, name) in enumerate(SQUARES):
        image_id = file.add_image(f"{number}.jpg", (60, 100), weather="sun" if number else "rain")
        file.add_annotations([square(x, 1 if name == "dog" else 2, image_id)])
    file.write(tmp_path / "truth.json")
    return tmp_path / "truth.json"


@pytest.fixture
def said(tmp_path: Path, truth: Path) -> Path:
    """Everything is found, and the cat is called a dog."""
    rows = [{**row, "category_id": 1, "score": 0.9} for row in CocoFile.read(truth).annotations]
    (tmp_path / "said.json").write_text(json.dumps(rows))
    return tmp_path / "said.json"


def edited(path: Path, name: str, **changes: Any) -> Path:
    """A copy with each annotation changed; a None takes a key away, a tuple is one change after another."""
    data = json.loads(path.read_text())
    for number, row in enumerate(data["annotations"] if isinstance(data, dict) else data):
        for key, change in changes.items():
            value = change[number % len(change)] if isinstance(change, tuple) else change
            row.pop(key, None) if value is None else row.update({key: value})
    (path.parent / name).write_text(json.dumps(data))
    return path.parent / name


def test_where_quality_is_lost_is_printed_written_and_first_on_the_page(cli: Cli, truth: Path, said: Path) -> None:
    out, page = truth.parent / "scores.json", truth.parent / "page"
    done = cli("evaluate", "--truth", truth, "--predictions", said, "--out", out, "--page", page, "--by", "weather")
    assert (done.code, done.err) == (0, "")
    lines = [line.split("│") for line in done.out.splitlines()]
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:6]] for cells in lines if len(cells) == 8}
    assert rows["true names"] == ["100.0", "+50.0", "100.0", "+33.3"]  # both dogs come before the cat that is called one
    assert list(rows) == ["as it is", "true names", "best masks", "perfect order", "all together"]
    assert done.out.count("where quality is lost") == 3 and "overlaps 100.0 % by IoU 0.5" in done.out
    scores = json.loads(out.read_text())["scores"]
    assert list(scores) == ["weather rain", "weather sun", "all"]
    assert scores["all"]["oracles"]["oracles"]["names"]["ap"] == 1 == scores["weather rain"]["oracles"]["ap"]
    text = (page / "index.html").read_text()
    assert text.index("<h2") == text.index('<h2 id="lost">Where quality is lost</h2>') < text.index("<svg")
    assert text.count("true names: each prediction that fits a true instance") == 1 and "+50.0" in text


def test_json_alone_is_printed_where_it_is_asked_for(cli: Cli, truth: Path, said: Path) -> None:
    out = truth.parent / "scores.json"
    done = cli("evaluate", "--truth", truth, "--predictions", said, "--json", "--out", out, "--page", truth.parent / "page")
    assert done.code == 0 and json.loads(done.out) == json.loads(out.read_text())
    assert done.err == f"written: {truth.parent / 'page' / 'index.html'}\n"
    told = json.loads(done.out)
    assert (told["iou"], told["max_detections"], told["notes"]) == ("segm", 100, [])
    assert told["coverage"] == {"images": 3, "without": [], "instances": 0, "unlisted": None}


# Images


def test_images_without_predictions_are_told(cli: Cli, truth: Path, said: Path) -> None:
    said.write_text(json.dumps(json.loads(said.read_text())[:1]))
    note = "2 of 3 images have no prediction at all; they count as misses (2 true instances)"
    done = cli("evaluate", "--truth", truth, "--predictions", said, "--json")
    assert (done.code, done.err) == (0, f"note: {note}\n")
    told = json.loads(done.out)
    assert told["notes"] == [note] and told["coverage"]["without"] == ["1.jpg", "2.jpg"]


def test_a_file_that_lists_fewer_images_is_told_apart_from_one_that_found_less(cli: Cli, truth: Path, said: Path) -> None:
    whole = CocoFile.read(truth)
    found = CocoFile(whole.images[:2], whole.categories, json.loads(said.read_text())[:1])
    found.write(said)
    done = cli("evaluate", "--truth", truth, "--predictions", said)
    assert done.err.endswith("they count as misses (2 true instances; the file does not list 1 of them)\n")


def test_no_predictions_at_all_are_scored_and_told(cli: Cli, truth: Path, said: Path) -> None:
    said.write_text("[]")
    done = cli("evaluate", "--truth", truth, "--predictions", said, "--json")
    assert done.err.startswith("note: 3 of 3 images have no prediction at all")
    scores = json.loads(done.out)["scores"]["all"]
    assert scores["class-aware masks"]["ap"] == scores["oracles"]["oracles"]["all"]["ap"] == 0


def test_predictions_on_other_images_are_refused(cli: Cli, truth: Path, said: Path) -> None:
    done = cli("evaluate", "--truth", truth, "--predictions", edited(said, "other.json", image_id=7))
    assert done.code == 2 and "prediction 0 is of image_id 7, expected one of 1, 2, 3" in done.err


# Masks or boxes

BOXES = {
    "class-aware boxes",
    "class-agnostic boxes",
    "class-aware separation",
    "class-agnostic separation",
    "answer",
    "oracles",
}


def test_boxes_are_scored_where_asked_for(cli: Cli, truth: Path, said: Path) -> None:
    given = ("--truth", truth, "--predictions", said, "--iou", "bbox", "--page", truth.parent / "page")
    done = cli("evaluate", *given, "--per-class", "--novel", "cat", "--json")
    told = json.loads(done.out)
    assert (told["iou"], told["notes"]) == ("bbox", [])
    assert told["scores"]["all"].keys() == {*BOXES, "novel boxes", "base boxes"}
    text = (truth.parent / "page" / "index.html").read_text()
    assert "by their boxes" in text and "best boxes" in text


@pytest.mark.parametrize(("side", "words"), [("truth", "the truth has"), ("said", "the predictions have")])
@pytest.mark.parametrize("empty", [None, []])
def test_boxes_are_scored_where_a_side_has_no_masks(
    cli: Cli, truth: Path, said: Path, side: str, words: str, empty: Any
) -> None:
    places = {"truth": truth, "said": said}
    places[side] = edited(places[side], "bare.json", segmentation=empty)
    done = cli("evaluate", "--truth", places["truth"], "--predictions", places["said"], "--json")
    assert done.err == f"note: {words} no masks, only boxes: boxes are scored\n"
    told = json.loads(done.out)
    assert told["scores"]["all"].keys() == BOXES and told["notes"] == [done.err.removeprefix("note: ").strip()]
    refused = cli("evaluate", "--truth", places["truth"], "--predictions", places["said"], "--iou", "segm")
    assert refused.code == 2 and "3 of 3 in the" in refused.err and "--iou bbox" in refused.err


def test_masks_of_some_instances_are_refused_and_their_boxes_are_scored(cli: Cli, truth: Path, said: Path) -> None:
    mixed = edited(truth, "mixed.json", segmentation=([], [[40, 0, 60, 0, 60, 20, 40, 20]]))
    refused = cli("evaluate", "--truth", mixed, "--predictions", said)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "2 of 3 in the truth have none: annotation 1 on 0.jpg; annotation 3 on 2.jpg; score boxes" in refused.err
    assert cli("evaluate", "--truth", mixed, "--predictions", said, "--iou", "bbox").code == 0


def test_what_the_truth_lacks_is_said_before_a_method_runs(cli: Cli, truth: Path) -> None:
    mixed = edited(truth, "mixed.json", segmentation=([], [[40, 0, 60, 0, 60, 20, 40, 20]]))
    refused = cli("evaluate", "--truth", mixed, "--images", truth.parent, "--models", "not there")
    assert refused.code == 2 and "2 of 3 in the truth have none" in refused.err


def test_scores_are_written_though_the_page_cannot_be(cli: Cli, truth: Path, said: Path) -> None:
    out = truth.parent / "scores.json"
    done = cli("evaluate", "--truth", truth, "--predictions", said, "--out", out, "--page", truth.parent)
    assert done.code == 2 and "new or empty folder" in done.err and out.is_file()


# Limits


def test_the_limit_of_detections_is_named_wherever_it_counts(cli: Cli, truth: Path, said: Path) -> None:
    given = ("--truth", truth, "--predictions", said, "--max-detections", 300)
    page = truth.parent / "page"
    assert "AR@300" in cli("evaluate", *given, "--page", page).out
    assert "AR@300" in (page / "index.html").read_text()
    told = json.loads(cli("evaluate", *given, "--json").out)
    assert "maxDets 1/10/300" in told["protocol"] and told["max_detections"] == 300
    masks = told["scores"]["all"]["class-aware masks"]
    assert masks["ar300"] == 0.5 and "ar100" not in masks


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--max-detections", 0), "expected 1 to 10,000 detections an image and class as the limit, got 0"),
        (("--max-detections", -3), "got -3"),
        (("--max-detections", 10**12), "got 1000000000000"),
        (("--iou", "mask"), "unknown IoU 'mask'"),
        (("--task", "semantic", "--iou", "bbox"), "expected no --iou with --task semantic"),
        (("--task", "semantic", "--max-detections", 300), "expected no --max-detections with --task semantic"),
    ],
)
def test_wrong_calls_are_refused_in_one_line(
    cli: Cli, truth: Path, said: Path, arguments: tuple[object, ...], words: str
) -> None:
    done = cli("evaluate", "--truth", truth, "--predictions", said, *arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("annofree: ") and words in done.err
