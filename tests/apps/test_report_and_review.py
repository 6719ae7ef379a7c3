"""``annofree report`` and ``annofree review`` on a run of the fakes, from end to end."""

import json
import re
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from tests.support.commands import invoker, refusal_of

from annofree.apps.cli.look_commands.report import report
from annofree.apps.cli.look_commands.review import review
from annofree.formats.coco import CocoFile
from annofree.methods.build import MethodSpec
from annofree.methods.zip import Zip
from annofree.render.overlay import draw_overlay
from annofree.structures import Vocabulary
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.paper_world import NAMES, draw_paper_scenes

said = invoker(report, review)


def refusal(*arguments: object) -> str:
    return refusal_of(said(*arguments))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a run of Zip on the fakes leaves of the paper world, and the fakes where it looks for its models."""
    method, folder, photos = Zip(FakeClip(), FakeSam(), "default"), tmp_path / "run", tmp_path / "photos"
    monkeypatch.setattr(MethodSpec, "build", lambda *_, **__: method)
    (folder / "overlays").mkdir(parents=True)
    photos.mkdir()
    file = CocoFile.with_categories(dict(enumerate(NAMES, 1)))
    for k, scene in enumerate(draw_paper_scenes()):
        PIL.Image.fromarray(scene.image.pixels).save(photos / f"{k}.png")
        found = method.instances(scene.image, Vocabulary.of(NAMES))
        draw_overlay(scene.image, found).save(folder / "overlays" / f"{k}.jpg")
        file.add_annotations(found.to_coco(file.add_image(f"{k}.png", scene.image.size, overlay=f"overlays/{k}.jpg")))
    file.write(folder / "annotations.json")
    settings = {"classes": [[name] for name in NAMES], "models": "tiny", "variant": "default", "methods": {"instance": "zip"}}
    (folder / "run.json").write_text(json.dumps({"settings": settings, "provenance": method.provenance, "failed": {}}))
    (folder / "shards").mkdir()
    (folder / "shards" / "settings.json").write_text(json.dumps({"asked": {"root": str(photos)}}))
    return folder


def told(folder: Path) -> Any:
    return json.loads((folder / "review" / "review.json").read_text())


def test_a_run_is_reported(run: Path, tmp_path: Path) -> None:
    done = said("report", run, "--shown", 3, "--crops", 2)
    assert done.exit_code == 0 and done.output == f"written: {run / 'report' / 'index.html'}\n"
    text = (run / "report" / "index.html").read_text()
    assert "Run of 8 images" in text and text.count("<figure>") == 8 and all(name in text for name in NAMES)
    assert "was not found" not in text  # the images of the run are known, and instances are drawn over them
    assert said("report", run, "--out", tmp_path / "r", "--images", tmp_path / "photos").exit_code == 0
    sheets = [(place / "sheets" / "001.jpg").read_bytes() for place in (run / "report", tmp_path / "r")]
    assert sheets[0] != sheets[1]  # two crops, and 24
    assert "check --images" in refusal("report", run, "--images", tmp_path / "no")
    assert "run.json" in refusal("report", tmp_path)


def test_a_run_is_reviewed_and_the_review_reported(run: Path) -> None:
    done = said("review", run, "--worst", 3, "--risk", "score")
    assert done.exit_code == 0 and "riskiest 3 of 8 images by score" in done.output
    assert told(run)["worst"][0]["file_name"] == "7.png"  # the empty scene
    assert said("report", run / "review").exit_code == 0
    assert "Run of 3 images" in (run / "review" / "report" / "index.html").read_text()


def test_the_page_of_a_review_has_its_images_in_its_order(run: Path, tmp_path: Path) -> None:
    done = said("review", run, "--worst", 5)
    assert done.exit_code == 0 and f"written: {run / 'review'}/review.html, review.json" in done.output
    text = (run / "review" / "review.html").read_text()
    ranked = [line["file_name"] for line in told(run)["worst"]]
    assert re.findall(r'<bdi class="name">([^<]*)', text) == ranked and "was not found" not in text
    assert said("review", run, "--worst", 5, "--images", tmp_path / "run").exit_code == 0
    assert (run / "review" / "review.html").read_text().count("was not found") == 5  # of another folder: the run's drawings


def test_looking_again_finds_what_shakes(run: Path, tmp_path: Path) -> None:
    file = CocoFile.read(run / "annotations.json")
    wrong = next(r for r in file.annotations if r["image_id"] == 1)
    wrong["category_id"] = 1 + wrong["category_id"] % len(NAMES)  # as if the run had been wrong there
    file.write(run / "annotations.json")
    assert said("review", run, "--look", "flip,shift,scale", "--risk", "joint", "--device", "cpu", "--quiet").output == ""
    assert (told(run)["by"], told(run)["worst"][0]["file_name"]) == ("joint", "0.png")
    assert "not found again" in told(run)["worst"][0]["reasons"][0]
    parts = {line["file_name"]: line["parts"]["jitter"] for line in told(run)["worst"]}
    assert parts["0.png"] > 0.9 and sum(value < 0.2 for value in parts.values()) >= 5
    (tmp_path / "photos" / "3.png").unlink()
    assert "could not be opened again" in said("review", run, "--look", "flip", "--risk", "joint").output
    assert list(told(run)["not_looked_at"]) == ["3.png"]


def test_another_run_is_held_against(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    file = CocoFile.read(run / "annotations.json")
    file.annotations = [r for r in file.annotations if r["image_id"] != 3]
    file.write(other / "annotations.json")
    assert said("review", run, "--against", other, "--risk", "joint").exit_code == 0
    assert (told(run)["by"], told(run)["worst"][0]["file_name"]) == ("joint", "2.png")


def test_wrong_calls_are_refused(run: Path, tmp_path: Path) -> None:
    assert "did you mean 'flip'" in refusal("review", run, "--look", "flop")
    assert "run.json" in refusal("review", tmp_path)
    (run / "shards" / "settings.json").unlink()
    assert "--images" in refusal("review", run, "--look", "flip")
    (run / "run.json").write_text("{}")
    assert "settings" in refusal("review", run, "--look", "flip", "--images", tmp_path / "photos")
    assert not (run / "review").exists()
