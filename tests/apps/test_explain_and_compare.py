"""``annofree explain`` and ``annofree compare``: their pages, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from tests.support.commands import invoker, refusal_of
from tests.support.pages import HOSTILE, Page, assert_strict

import annofree
from annofree.apps.cli.look_commands.compare import compare
from annofree.apps.cli.look_commands.explain import explain
from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.methods.build import MethodSpec
from annofree.methods.dense.maskclip import MaskClip
from annofree.methods.zip import Zip
from annofree.render.overlay import draw_overlay
from annofree.render.steps_page import Drawing, Step, write_steps_page
from annofree.runs.compare_runs import read_truth
from annofree.structures import Detections, Image
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.paper_world import NAMES, draw_paper_scenes

said = invoker(explain, compare)
ASKED = ", ".join(NAMES)
SCENES = draw_paper_scenes()


def refusal(*arguments: object) -> str:
    return refusal_of(said(*arguments))


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zip on the fakes, which read the paper world perfectly, whatever is asked for."""
    monkeypatch.setattr(MethodSpec, "build", lambda *_, **__: Zip(FakeClip(), FakeSam()))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for k, scene in enumerate(SCENES[:3]):
        PIL.Image.fromarray(scene.image.pixels).save(folder / f"{k}.png")
    return folder


def write_run(folder: Path, photos: Path, numbers: list[int], names: list[str], keep: int = 100) -> Path:
    """A run of some of the scenes, asked for names in an order of its own, of which it keeps the strongest things."""
    folder.mkdir()
    file = CocoFile.with_categories(dict(enumerate(names, 1)))
    for k in numbers:
        found = Zip(FakeClip(), FakeSam()).instances(SCENES[k].image, names)[:keep]
        file.add_annotations(found.to_coco(file.add_image(f"{k}.png", SCENES[k].image.size)))
    file.write(folder / "annotations.json")
    settings = {"models": "tiny", "methods": {"instance": folder.name}}
    (folder / "run.json").write_text(json.dumps({"settings": settings, "failed": {}}))
    (folder / "shards").mkdir()
    (folder / "shards" / "settings.json").write_text(json.dumps({"asked": {"root": str(photos)}}))
    return folder


@pytest.fixture
def runs(tmp_path: Path, photos: Path) -> tuple[Path, Path]:
    names = list(NAMES)
    return write_run(tmp_path / "a", photos, [0, 1, 2], names), write_run(tmp_path / "b", photos, [2, 1], names[::-1], 1)


def test_an_image_is_explained(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "how"
    done = said("explain", photos / "2.png", "--classes", ASKED, "--method", "zip", "--models", "tiny", "--out", out)
    assert done.exit_code == 0 and done.output == f"written: {out / 'index.html'}\n"
    page = Page.read(out / "index.html")
    assert_strict(page)
    pictures = [Path(str(image["src"])) for image in page.of("img")]
    assert all((out / place).is_file() and place.suffix == ".png" for place in pictures)
    assert all(image["alt"] for image in page.of("img")) and len(pictures) == len(list((out / "images").iterdir()))
    own = draw_overlay(SCENES[2].image, Zip(FakeClip(), FakeSam()).instances(SCENES[2].image, list(NAMES)))
    with PIL.Image.open(out / pictures[-1]) as last:
        assert last.tobytes() == own.tobytes()  # the last picture is the answer
    assert said("explain", photos / "0.png", "--classes", ASKED, "--models", "tiny", "--out", out).exit_code == 0  # replaced


def test_in_memory_nothing_is_written(photos: Path) -> None:
    found = annofree.explain(SCENES[2].image, ASKED, method="zip", models="tiny")
    assert found.page is None and sorted(found.answer.labels) == sorted(SCENES[2].names)


def test_wrong_calls_of_explain_are_one_line(photos: Path, runs: tuple[Path, Path], tmp_path: Path) -> None:
    given = ("--classes", ASKED, "--models", "tiny", "--out", tmp_path / "how")
    assert "none.png" in refusal("explain", tmp_path / "none.png", *given)
    assert refusal("explain", photos, *given).startswith("expected one image to explain, got 0.png, 1.png")
    assert "expected either --classes" in refusal("explain", photos / "0.png", "--models", "tiny", "--out", tmp_path / "how")
    assert "expected one method to explain" in refusal("explain", photos / "0.png", *given, "--method", "zip+clip_diy")
    assert "one is explained at a time" in refusal("explain", photos / "0.png", *given, "--task", "panoptic")
    assert "zip does instance" in refusal("explain", photos / "0.png", *given, "--method", "zip", "--task", "semantic")
    inside = ("--classes", ASKED, "--models", "tiny", "--out", runs[0] / "how")
    assert f"in the run {runs[0]}" in refusal("explain", photos / "0.png", *inside)
    assert "expected a new or empty folder" in refusal("explain", photos / "0.png", *given[:-1], photos)
    assert not (tmp_path / "how").exists() and not (runs[0] / "how").exists()


def test_runs_are_compared(runs: tuple[Path, Path], tmp_path: Path) -> None:
    out, truth = tmp_path / "beside", tmp_path / "truth.json"
    file = CocoFile.with_categories({7: NAMES[0]})
    box = {"category_id": 7, "bbox": [2, 3, 10, 8], "area": 80, "iscrowd": 0}
    file.add_annotations([{**box, "image_id": file.add_image("1.png", SCENES[1].image.size)}])
    file.write(truth)
    done = said("compare", *runs, "--truth", truth, "--out", out)
    assert done.exit_code == 0, done.exception
    assert f"Left out of {runs[0]} (a, tiny), for not all runs have them: 1 images: 0.png." in done.output
    assert "The truth does not have 1 images that are shown: 2.png." in done.output
    page = Page.read(out / "index.html")
    assert_strict(page)
    alts = [str(image["alt"]) for image in page.of("img")]
    assert [alt.split(":")[0] for alt in alts] == ["1.png"] * 4 + ["2.png"] * 3  # in the order of the first run
    assert f"1.png: the truth: 1 {NAMES[0]}" in alts and "0.png" in page.text
    whole = Zip(FakeClip(), FakeSam()).instances(SCENES[1].image, list(NAMES))
    images = [Image(np.asarray(PIL.Image.open(out / str(image["src"])))) for image in page.of("img")]
    assert images[2].pixels.tobytes() == draw_overlay(SCENES[1].image, whole).tobytes()
    assert images[3].pixels.tobytes() == draw_overlay(SCENES[1].image, whole[:1]).tobytes()  # a name has one color in all runs
    few = annofree.compare(runs, out=out, limit=1)
    assert few.shown == ("1.png",) and any("limit of 1: 1 images: 2.png" in line for line in few.left_out)


def test_an_image_that_is_gone_is_named_and_the_rest_is_shown(runs: tuple[Path, Path], photos: Path, tmp_path: Path) -> None:
    (photos / "1.png").unlink()
    done = annofree.compare(runs, out=tmp_path / "beside")
    assert done.shown == ("2.png",) and "not shown: 1.png" in done.left_out
    assert "It cannot be shown" in (tmp_path / "beside" / "index.html").read_text()
    (photos / "2.png").unlink()
    with pytest.raises(InputError, match=r"2\.png"):
        annofree.compare(runs, out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_wrong_calls_of_compare_are_one_line(runs: tuple[Path, Path], photos: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "beside")
    assert "is not a run folder" in refusal("compare", runs[0], photos, *out)
    assert "expected two runs or more" in refusal("compare", runs[0], *out)
    assert "twice" in refusal("compare", runs[0], runs[0], *out)
    assert f"in the run {runs[1]}" in refusal("compare", *runs, "--out", runs[1] / "report")
    other = write_run(tmp_path / "c", photos, [0], list(NAMES))
    assert "no image is in all of them" in refusal("compare", runs[1], other, *out)
    (other / "annotations.json").unlink()
    assert "expected instances or label maps in the run" in refusal("compare", runs[0], other, *out)
    (tmp_path / "truth.json").write_text("{}")
    assert "truth.json" in refusal("compare", *runs, *out, "--truth", tmp_path / "truth.json")
    assert not (tmp_path / "beside").exists()


def test_label_maps_are_compared(
    runs: tuple[Path, Path], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MethodSpec, "build", lambda *_, **__: MaskClip(FakeClip()))
    one, other = tmp_path / "maps", tmp_path / "more"
    given: dict[str, Any] = {"task": "semantic", "method": "maskclip", "models": "tiny", "device": "cpu"}
    for out, names in ((one, NAMES), (other, ("sky", *reversed(NAMES)))):
        annofree.segment(photos, list(names), out=out, **given)
    done = annofree.compare([one, other], truth=one / "labels", out=tmp_path / "beside")
    assert len(done.shown) == 3 and done.left_out == ()
    page = Page.read(tmp_path / "beside" / "index.html")
    assert_strict(page)
    alts = [str(image["alt"]) for image in page.of("img")]
    assert len(alts) == 12 and alts[1].startswith("0.png: the truth: ") and f"{one} (maskclip, tiny): " in alts[2]
    told = [alt.partition(": ")[2].partition(": ")[2] for alt in alts[1:4]]
    assert told[0] == told[1] == told[2] != ""
    pictures = [Image(np.asarray(PIL.Image.open(tmp_path / "beside" / str(image["src"])))) for image in page.of("img")]
    # a name has one color in all columns
    assert pictures[1].pixels.tobytes() == pictures[2].pixels.tobytes() == pictures[3].pixels.tobytes()
    mixed = annofree.compare([runs[0], one], out=tmp_path / "mixed")
    assert len(mixed.shown) > 1 and "(maskclip, tiny)" in (tmp_path / "mixed" / "index.html").read_text()
    assert "expected " in refusal("compare", one, other, "--truth", photos, "--out", tmp_path / "none")


def test_crowds_of_a_truth_are_left_out() -> None:
    file = CocoFile.with_categories({1: "dog"})
    crowd = {"image_id": file.add_image("a.png", (8, 8)), "category_id": 1, "bbox": [0, 0, 4, 4], "iscrowd": 1}
    file.add_annotations([crowd, {**crowd, "bbox": [2, 3, 4, 2], "iscrowd": 0}])
    found = read_truth(file).found["a.png"]
    assert found.boxes.tolist() == [[2, 3, 6, 5]] and isinstance(found, Detections)


def test_any_text_is_shown_as_it_is(tmp_path: Path) -> None:
    step = Step(HOSTILE, HOSTILE, (Drawing(HOSTILE, PIL.Image.new("RGB", (4, 4))),))
    page = Page.read(write_steps_page(tmp_path / "page", HOSTILE, [HOSTILE], [step], "test"))
    assert_strict(page)
    assert len(page.of("img")) == 1 and page.of("script") == []
