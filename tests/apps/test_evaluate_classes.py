"""``annofree evaluate`` on novel and base classes, on each class, and its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from tests.support.commands import invoker, refusal_of

from annofree.apps.cli.commands.evaluate import evaluate
from annofree.datasets.names import COCO_IDS, COCO_NAMES
from annofree.formats.coco import CocoFile
from annofree.methods.build import MethodSpec
from annofree.methods.zip import Zip
from annofree.structures import Detections
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.paper_world import NAMES, draw_paper_scenes

said = invoker(evaluate)


def refusal(*arguments: object) -> str:
    return refusal_of(said(*arguments))


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """The paper world's images and truth, and answers that lack all of the first class."""
    file, ids = CocoFile.with_categories(dict(enumerate(NAMES, 1))), range(1, len(NAMES) + 1)
    for number, scene in enumerate(draw_paper_scenes()):
        PIL.Image.fromarray(scene.image.pixels).save(tmp_path / f"{number}.png")
        image_id = file.add_image(f"{number}.png", scene.image.size)
        kinds = [NAMES.index(name) for name in scene.names]
        rows = Detections.from_masks(scene.masks, kinds, [1.0] * len(kinds), NAMES).to_coco(image_id, list(ids))
        file.add_annotations([{k: v for k, v in row.items() if k != "score"} for row in rows])
    file.write(tmp_path / "truth.json")
    answers = [{**row, "score": 0.9} for row in file.annotations if row["category_id"] != 1]
    (tmp_path / "said.json").write_text(json.dumps(answers))
    return tmp_path


def scores(place: Path) -> Any:
    return json.loads(place.read_text())["scores"]


def test_novel_base_and_each_class_are_scored_and_the_page_is_written(world: Path) -> None:
    out, page = world / "scores.json", world / "page"
    given = ("--truth", world / "truth.json", "--predictions", world / "said.json", "--out", out)
    done = said(*given, "--novel", NAMES[0], "--per-class", "--page", page, "--pictures", world)
    assert done.exit_code == 0, done
    told = scores(out)
    assert [told["all"][f"{group} {kind}"]["ap50"] for group in ("novel", "base") for kind in ("masks", "boxes")] == [
        0,
        0,
        1,
        1,
    ]
    assert told["classes"][NAMES[0]]["ap"] == 0 and told["classes"][NAMES[1]]["ap"] == 1
    assert f"written: {page / 'index.html'}" in done.output
    text = (page / "index.html").read_text()
    missed = sum(scene.names.count(NAMES[0]) for scene in draw_paper_scenes())
    assert f"Largest misses: {missed} of {missed}" in text and len(list((page / "crops").iterdir())) == missed > 0
    assert "novel" in text and "Surest false alarms" not in text


def test_a_method_is_scored_with_a_page(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MethodSpec, "build", lambda _: Zip(FakeClip(), FakeSam(), "default"))
    assert said("--truth", world / "truth.json", "--images", world, "--page", world / "page").exit_code == 0
    assert "100.0" in (world / "page" / "index.html").read_text()


def test_the_split_of_coco_leaves_fifteen_classes_and_their_pictures_out(tmp_path: Path) -> None:
    truth = CocoFile.with_categories(dict(zip(COCO_IDS, COCO_NAMES, strict=True)))
    for name in ("airplane", "person", "traffic light"):
        row = {"image_id": truth.add_image(f"{name}.jpg", (40, 40)), "category_id": COCO_IDS[COCO_NAMES.index(name)]}
        truth.add_annotations([{**row, "bbox": [0, 0, 20, 20], "segmentation": [[0, 0, 20, 0, 20, 20, 0, 20]]}])
    truth.write(tmp_path / "truth.json")
    answers = [{**row, "score": 0.9} for row in truth.annotations if row["category_id"] != 1]
    (tmp_path / "said.json").write_text(json.dumps(answers))
    out = tmp_path / "scores.json"
    given = ("--truth", tmp_path / "truth.json", "--predictions", tmp_path / "said.json", "--out", out)
    assert said(*given, "--novel", "coco-17").exit_code == 0
    told = scores(out)["all"]
    assert (told["novel boxes"]["ap50"], told["base boxes"]["ap50"], told["class-aware boxes"]["ap50"]) == (1, 0, 0.5)
    assert (told["class-aware boxes"]["n_images"], told["class-aware boxes"]["n_predictions"]) == (2, 1)


def test_wrong_calls_are_refused(world: Path) -> None:
    given = ("--truth", world / "truth.json", "--predictions", world / "said.json")
    assert "unknown category 'zebra'" in refusal(*given, "--novel", "zebra")
    assert "--pictures with --page" in refusal(*given, "--pictures", world)
    assert "check --pictures" in refusal(*given, "--page", world / "page", "--pictures", world / "none")
    assert "new or empty folder" in refusal(*given, "--page", world)
    for option in (("--novel", "cat"), ("--per-class",), ("--page", world / "page")):
        assert f"no {option[0]} with --task semantic" in refusal(*given, "--task", "semantic", *option)
