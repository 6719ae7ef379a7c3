"""The command line as people meet it: exit codes, one-line refusals, and the files that are left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from pycocotools.coco import COCO
from tests.support.cli import Cli, Said
from tests.support.drawing import drawing
from tests.support.fresh_process import CALLS
from tests.support.paper import write_scenes
from tests.support.recipes import recipe_head

import annofree.experiments.measure
import annofree.runs.engines.engine
from annofree.apps.cli import main
from annofree.experiments.measure import Figures
from annofree.formats.coco import CocoFile
from annofree.methods.build import MethodSpec
from annofree.methods.zip import Zip, ZipEncoding
from annofree.runs.environment import describe_environment
from annofree.structures import Detections, Image
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.paper_world import COLORS, NAMES, draw_paper_scenes

ROOT = Path(__file__).parents[2]
ALL = ", ".join(NAMES)
COCO_DECODES = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Put Zip on the fakes in the place of every method; what was asked for is recorded."""
    asked: list[dict[str, str]] = []

    def build(spec: MethodSpec, vocabulary: Any = None) -> Zip:
        asked.append({"method": spec.method, "models": spec.models, "variant": spec.variant, "device": spec.device})
        assert spec.precision == "float32"
        return Zip(FakeClip(), FakeSam(), spec.variant)

    monkeypatch.setattr(MethodSpec, "build", build)
    return asked


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The paper world as a folder of eight images, named 0.png to 7.png."""
    return write_scenes(tmp_path / "photos")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def assert_refused(said: Said, *words: str) -> None:
    """Exit code 2, nothing on stdout, and one line that says why."""
    assert said.code == 2, said
    assert said.out == ""
    assert said.err.startswith("annofree: ")
    assert said.err.count("\n") == 1
    assert said.err.endswith("\n")
    for word in words:
        assert word in said.err


# Segment: what is left behind


@COCO_DECODES
def test_true_models_from_end_to_end(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    names = "orange, elephant, dog, bird, person: man | woman"
    said = cli(
        "segment",
        ROOT / "examples" / "scenes",
        "--classes",
        names,
        "--limit",
        2,
        "--out",
        out,
        "--device",
        "cpu",
        "--models",
        "tiny",
    )
    assert said.code == 0, said
    assert " instances in 2 images; " in said.out
    assert "images: 2 of 2 in " in said.err

    coco = COCO(str(out / "annotations.json"))
    assert [row["name"] for row in coco.loadCats(coco.getCatIds())] == ["orange", "elephant", "dog", "bird", "person"]
    assert len(coco.getImgIds()) == 2
    for image in coco.loadImgs(coco.getImgIds()):
        with PIL.Image.open(out / image["overlay"]) as overlay:
            assert overlay.width * image["height"] == overlay.height * image["width"]
    rows = coco.loadAnns(coco.getAnnIds())
    assert rows
    for row in rows:
        assert coco.annToMask(row).sum() == row["area"] > 0
        assert 0 < row["score"] <= 1

    run = read(out / "run.json")
    assert run["settings"]["classes"][-1] == ["person", "man", "woman"]
    assert (run["settings"]["models"], run["settings"]["variant"]) == ("tiny", "default")
    assert run["provenance"]["method"] == "consensus"
    assert run["provenance"]["policy"]["calibrated"] is True
    clip, sam, detector = run["provenance"]["models"]
    assert (detector["name"], detector["tier"]) == ("tiny-detector", "S2")
    assert (clip["name"], clip["tier"], sam["name"], sam["tier"]) == ("tiny-clip", "S1", "tiny-sam", "S2")
    assert all(len(sha) == 64 for model in (clip, sam) for sha in model["sha256"].values())
    assert {"python", "annofree", "torch", "open_clip_torch"} <= run["versions"].keys()
    assert run["environments"] == [describe_environment()]
    assert run["timings"]["images"] == 2
    assert run["timings"]["seconds_encode"] > 0
    assert (run["failed"], run["instances"]) == ({}, len(rows))


def test_a_folder_of_pictures(cli: Cli, fakes: list[dict[str, str]], photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    said = cli("segment", photos, "--classes", ALL, "--out", out, "--variant", "paper", "--device", "cpu", "--batch-size", 3)
    assert said.code == 0
    assert fakes == [{"method": "zip", "models": "fast", "variant": "paper", "device": "cpu"}]
    assert "11 instances in 8 images; " in said.out
    assert f"{out}/annotations.json, {out}/overlays" in said.out
    assert sorted(p.name for p in out.rglob("*") if p.is_file() and p.parent.name != "shards") == sorted(
        [*(f"{n}.jpg" for n in range(8)), "annotations.json", "run.json"]
    )
    coco = read(out / "annotations.json")
    names = {row["id"]: row["name"] for row in coco["categories"]}
    for number, scene in enumerate(draw_paper_scenes()):
        (image,) = (row for row in coco["images"] if row["file_name"] == f"{number}.png")
        found = [names[row["category_id"]] for row in coco["annotations"] if row["image_id"] == image["id"]]
        assert sorted(found) == sorted(scene.names)
    assert read(out / "run.json")["settings"]["batch_size"] == 3


def test_results_within_the_pictures_are_not_pictures(cli: Cli, fakes: Any, photos: Path) -> None:
    for _ in range(2):
        assert cli("segment", photos, "--classes", ALL, "--out", photos / "out").code == 0
        assert len(read(photos / "out" / "annotations.json")["images"]) == 8


def test_limit_takes_the_first(cli: Cli, fakes: Any, photos: Path, tmp_path: Path) -> None:
    assert cli("segment", photos, "--classes", ALL, "--limit", 3, "--out", tmp_path / "out").code == 0
    assert [row["file_name"] for row in read(tmp_path / "out" / "annotations.json")["images"]] == ["0.png", "1.png", "2.png"]


def test_json_is_all_that_is_printed(cli: Cli, fakes: Any, photos: Path, tmp_path: Path) -> None:
    said = cli("segment", photos, "--classes", f"{ALL}, zeppelin", "--out", tmp_path / "out", "--json")
    assert (said.code, said.err) == (0, "")
    summary = json.loads(said.out)
    assert summary == read(tmp_path / "out" / "run.json")
    assert (summary["instances"], summary["timings"]["images"], summary["failed"]) == (11, 8, {})
    assert summary["remarks"] == ["fake-clip has never read: zeppelin"]


def test_quiet_prints_nothing(cli: Cli, fakes: Any, photos: Path, tmp_path: Path) -> None:
    assert cli("segment", photos, "--classes", f"{ALL}, zeppelin", "--out", tmp_path / "out", "--quiet") == Said(0, "", "")


def test_remarks_are_notes(cli: Cli, fakes: Any, photos: Path, tmp_path: Path) -> None:
    said = cli("segment", photos / "0.png", "--classes", "apple, zeppelin", "--out", tmp_path / "out")
    assert said.code == 0
    assert "note: fake-clip has never read: zeppelin\n" in said.err


def test_classes_from_a_file(cli: Cli, fakes: Any, photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes("\ufeffcar: automobile | motor  car\n\n# what we left out:\n  # boat\napple\n   \r\ntree \r\n".encode())
    assert cli("segment", photos, "--classes-file", file, "--limit", 1, "--out", tmp_path / "out").code == 0
    assert read(tmp_path / "out" / "run.json")["settings"]["classes"] == [
        ["car", "automobile", "motor car"],
        ["apple"],
        ["tree"],
    ]


# Segment: images as people have them


def test_one_broken_picture_does_not_stop_the_others(cli: Cli, fakes: Any, photos: Path, tmp_path: Path) -> None:
    whole = (photos / "0.png").read_bytes()
    (photos / "3.png").write_bytes(whole[: len(whole) // 2])
    said = cli("segment", photos, "--classes", ALL, "--out", tmp_path / "out")
    assert said.code == 1
    (line,) = (line for line in said.err.splitlines() if line.startswith("failed: "))
    assert str(photos / "3.png") in line
    names = [row["file_name"] for row in read(tmp_path / "out" / "annotations.json")["images"]]
    assert names == [f"{n}.png" for n in range(8) if n != 3]
    run = read(tmp_path / "out" / "run.json")
    assert list(run["failed"]) == [str(photos / "3.png")]
    assert (run["timings"]["images"], run["timings"]["failed"]) == (7, 1)


def test_failures_are_printed_even_when_quiet(cli: Cli, fakes: Any, photos: Path, tmp_path: Path) -> None:
    (photos / "3.png").write_bytes(b"")
    said = cli("segment", photos, "--classes", ALL, "--out", tmp_path / "out", "--quiet")
    assert (said.code, said.out) == (1, "")
    assert said.err.splitlines() == [
        f"failed: expected an image, but {photos / '3.png'} is empty (0 bytes); copy it again or leave it out"
    ]


class Exploding(Zip):
    """Fails at the scene 'touching', with a message that names no image."""

    problem: BaseException = RuntimeError("no memory\nfor this")

    def instances(self, image: Image | ZipEncoding, classes: Any) -> Detections:
        if image.size == (160, 96):
            raise self.problem
        return super().instances(image, classes)


def test_a_picture_on_which_the_method_fails_is_named(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, photos: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(MethodSpec, "build", lambda *_, **__: Exploding(FakeClip(), FakeSam()))
    said = cli("segment", photos, "--classes", ALL, "--out", tmp_path / "out", "--quiet")
    assert said == Said(1, "", f"failed: {photos / '1.png'}: no memory\n")
    assert len(read(tmp_path / "out" / "annotations.json")["images"]) == 7


def test_what_was_done_before_ctrl_c_is_kept_for_the_same_command(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, photos: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(Exploding, "problem", KeyboardInterrupt())
    monkeypatch.setattr(MethodSpec, "build", lambda *_, **__: Exploding(FakeClip(), FakeSam()))
    command = ("segment", photos, "--classes", ALL, "--batch-size", 1, "--out", tmp_path / "out")
    said = cli(*command)
    assert said.code == 130
    assert said.err.endswith("annofree: interrupted; finished work is saved, run the same command to resume\n")
    assert not (tmp_path / "out" / "annotations.json").exists()
    monkeypatch.setattr(Exploding, "problem", RuntimeError("no memory"))
    here = describe_environment()
    monkeypatch.setattr(annofree.runs.engines.engine, "describe_environment", lambda: here | {"threads": 99})
    again = cli(*command)
    assert "note: going on: 1 of 8 images are done\n" in again.err and again.code == 1
    elsewhere = f"threads was {here['threads']}, now it is 99"
    assert f"note: the rest is made elsewhere, and its last digits may differ: {elsewhere}\n" in again.err
    assert [place["threads"] for place in read(tmp_path / "out" / "run.json")["environments"]] == [here["threads"], 99]
    names = [row["file_name"] for row in read(tmp_path / "out" / "annotations.json")["images"]]
    assert names == [f"{n}.png" for n in range(8) if n != 1]


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, photos: Path, tmp_path: Path) -> None:
    def build(*_: Any, **__: Any) -> Zip:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(MethodSpec, "build", build)
    arguments = ["annofree", "segment", str(photos), "--classes", ALL, "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(ZeroDivisionError, match="ours"):
        main()


def odd_images(folder: Path) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """Write odd images; return the (W, H) of those that can be read, and the names of those that cannot."""
    red, gray = COLORS["apple"][0], (128, 128, 128)
    image = PIL.Image.new("RGB", (60, 40), gray)
    image.paste(red, (8, 8, 40, 32))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "rotated.png", exif=exif)
    image.convert("CMYK").save(folder / "cmyk.jpg")
    PIL.Image.fromarray(np.full((40, 60), 40_000, np.uint16)).save(folder / "deep.png")
    image.save(folder / "moving.gif", save_all=True, append_images=[PIL.Image.new("RGB", (60, 40), red)])
    PIL.Image.new("RGB", (1, 1), red).save(folder / "dot.png")
    PIL.Image.new("RGB", (20_000, 3), red).save(folder / "thread.png")
    image.convert("P").save(folder / "pålette, ünd mehr.PNG")
    image.save(folder / "whole.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:400])
    (folder / "zero.jpg").touch()
    (folder / "text.png").write_text("not an image", encoding="utf-8")
    (folder / "nowhere.jpg").symlink_to(folder / "gone.jpg")
    (folder / "notes.txt").write_text("passed over", encoding="utf-8")
    good = dict.fromkeys(["cmyk.jpg", "deep.png", "moving.gif", "pålette, ünd mehr.PNG", "whole.jpg"], (60, 40))
    good |= {"rotated.png": (40, 60), "dot.png": (1, 1), "thread.png": (20_000, 3)}
    return good, ["nowhere.jpg", "text.png", "truncated.jpg", "zero.jpg"]


def test_odd_pictures_in_one_folder(cli: Cli, fakes: Any, tmp_path: Path) -> None:
    folder, out = tmp_path / "odd", tmp_path / "out"
    folder.mkdir()
    good, bad = odd_images(folder)
    said = cli("segment", folder, "--classes", ALL, "--out", out, "--json")
    assert said.code == 1
    assert sorted(json.loads(said.out)["failed"]) == [str(folder / name) for name in bad]
    assert len(said.err.splitlines()) == len(bad)
    assert all(str(folder / name) in said.err for name in bad)
    coco = COCO(str(out / "annotations.json"))
    images = coco.loadImgs(coco.getImgIds())
    assert {row["file_name"]: (row["width"], row["height"]) for row in images} == good
    assert all((out / row["overlay"]).is_file() for row in images)
    (turned,) = (row["id"] for row in images if row["file_name"] == "rotated.png")
    (apple,) = coco.loadAnns(coco.getAnnIds(imgIds=[turned]))
    assert apple["bbox"] == [8.0, 8.0, 24.0, 32.0]  # 32 x 24 px at x 8 and y 8, turned clockwise


# Segment: wrong calls

WRONG: dict[str, tuple[list[str], list[str]]] = {
    "no images in the folder": (["EMPTY", "--classes", "dog"], ["expected images", "empty", "found none among 1 files"]),
    "missing path": (["MISSING", "--classes", "dog"], ["expected an image or a folder at", "No such file"]),
    "pipe": (["PIPE", "--classes", "dog"], ["is neither"]),
    "no classes": (["PHOTOS"], ['--classes "dog, cat"', "--classes-file", "got neither"]),
    "empty classes": (["PHOTOS", "--classes", ""], ["expected at least one class name, got none"]),
    "blank classes": (["PHOTOS", "--classes", " "], ["expected at least one class name, got none"]),
    "classes twice": (["PHOTOS", "--classes", "dog", "--classes-file", "NAMES"], ["got both"]),
    "empty classes and a file": (["PHOTOS", "--classes", "", "--classes-file", "NAMES"], ["got both"]),
    "missing classes file": (["PHOTOS", "--classes-file", "MISSING"], ["expected a text file of class names", "No such file"]),
    "classes file is a folder": (["PHOTOS", "--classes-file", "EMPTY"], ["expected a text file of class names", "directory"]),
    "classes file is no text": (
        ["PHOTOS", "--classes-file", "PHOTOS/0.png"],
        ["expected a text file of class names", "decode"],
    ),
    "classes file is empty": (["PHOTOS", "--classes-file", "COMMENTS"], ["expected at least one class name"]),
    "duplicate names": (["PHOTOS", "--classes", "dog, cat, dog"], ["each class name once", "'dog'"]),
    "empty name": (["PHOTOS", "--classes", "dog,,cat"], ["a class name is empty", "remove the extra comma"]),
    "empty synonym": (["PHOTOS", "--classes", "dog: |hound"], ["a class name is empty"]),
    "endless name": (["PHOTOS", "--classes", "d" * 300], ["300 characters", "separated by commas?"]),
    "out is a file": (["PHOTOS", "--classes", "dog", "--out", "NAMES"], ["a file is in the way", "--out"]),
    "out below a file": (["PHOTOS", "--classes", "dog", "--out", "NAMES/out"], ["a file is in the way", "--out"]),
    "unknown task": (["PHOTOS", "--classes", "dog", "--task", "instances"], ["unknown task", "did you mean 'instance'?"]),
}
UNKNOWN: dict[str, tuple[list[str], list[str]]] = {
    "method": (["--method", "zipp"], ["unknown method 'zipp'; did you mean 'zip'?"]),
    "models": (["--models", "tinny"], ["unknown models preset 'tinny'; did you mean 'tiny'?"]),
    "variant": (["--variant", "papr"], ["unknown variant of zip 'papr'; did you mean 'paper'?"]),
    "device": (["--device", "gpu"], ["unknown device 'gpu'", "Known: auto, cpu, cuda"]),
}


@pytest.fixture
def places(photos: Path, tmp_path: Path) -> dict[str, Path]:
    named = {"PHOTOS": photos, **{name: tmp_path / name.lower() for name in ("EMPTY", "MISSING", "PIPE", "NAMES", "COMMENTS")}}
    named["EMPTY"].mkdir()
    (named["EMPTY"] / "notes.txt").touch()
    os.mkfifo(named["PIPE"])
    named["NAMES"].write_text("dog\n", encoding="utf-8")
    named["COMMENTS"].write_text("# dog\n\n", encoding="utf-8")
    return named


def placed(arguments: Sequence[str], places: dict[str, Path]) -> list[str]:
    heads = [(a, *a.partition("/")) for a in arguments]
    return [str(places[head]) + slash + rest if head in places else a for a, head, slash, rest in heads]


@pytest.mark.parametrize("case", WRONG)
def test_wrong_calls_are_refused_in_one_line(
    cli: Cli, fakes: Any, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, case: str
) -> None:
    arguments, words = WRONG[case]
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert_refused(cli("segment", *placed(arguments, places)), *words)
    assert sorted(tmp_path.rglob("*")) == before  # nothing is written


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown_names_are_refused_in_one_line(cli: Cli, photos: Path, tmp_path: Path, case: str) -> None:
    arguments, words = UNKNOWN[case]
    assert_refused(cli("segment", photos, "--classes", "dog", "--out", tmp_path / "out", *arguments), *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments", [["--limit", "0"], ["--limit", "few"], ["--batch-size", "0"], ["--batch-size", "2.5"], ["--lmit", "3"]]
)
def test_bad_options_are_usage_errors(cli: Cli, photos: Path, arguments: list[str]) -> None:
    said = cli("segment", photos, "--classes", "dog", *arguments)
    assert (said.code, said.out) == (2, "")
    assert arguments[0] in said.err
    assert "Traceback" not in said.err


def test_no_input_is_a_usage_error(cli: Cli) -> None:
    said = cli("segment", "--classes", "dog")
    assert said.code == 2
    assert "INPUT" in said.err


# Evaluate


@pytest.fixture
def truth(photos: Path, tmp_path: Path) -> Path:
    """The truth of the images, wide or tall, with category ids of its own."""
    file = CocoFile.with_categories({10 * (k + 1): name for k, name in enumerate(NAMES)})
    for number, scene in enumerate(draw_paper_scenes()):
        height, width = scene.image.size
        id_ = file.add_image(f"{number}.png", (height, width), shape="wide" if width > height else "tall")
        ids, ones = [NAMES.index(name) for name in scene.names], [1.0] * len(scene.names)
        rows = Detections.from_masks(scene.masks, ids, ones, NAMES).to_coco(id_, [10 * (k + 1) for k in range(len(NAMES))])
        file.add_annotations([{k: v for k, v in row.items() if k != "score"} for row in rows])
    file.write(tmp_path / "truth.json")
    return tmp_path / "truth.json"


PERFECT = {f"{view} {what}" for view in ("class-aware", "class-agnostic") for what in ("masks", "boxes")}


def assert_perfect(scores: dict[str, Any]) -> None:
    assert scores.keys() == {*PERFECT, "class-aware separation", "class-agnostic separation", "answer", "oracles"}
    answer = scores["answer"]
    assert answer["precision"] == answer["recall"] == answer["f1"] == 1 and answer["duplicates"] == answer["count_error"] == 0
    oracles = scores["oracles"]
    assert oracles["ap"] == oracles["f1"] == oracles["candidate_recall"] == 1
    assert all(oracle["ap_gain"] == oracle["f1_gain"] == 0 for oracle in oracles["oracles"].values())
    assert {name: (scores[name]["ap"], scores[name]["ar100"]) for name in PERFECT} == dict.fromkeys(PERFECT, (1.0, 1.0))


def test_what_segment_found_is_scored(cli: Cli, fakes: Any, photos: Path, truth: Path, tmp_path: Path) -> None:
    out, scores = tmp_path / "out", tmp_path / "reports" / "scores.json"
    assert cli("segment", photos, "--classes", ", ".join(reversed(NAMES)), "--out", out).code == 0
    said = cli("evaluate", "--truth", truth, "--predictions", out / "annotations.json", "--out", scores)
    assert (said.code, said.err) == (0, "")
    assert "1 of 1 touching same-class pairs, 100.0 %" in said.out
    assert "precision 100.0, recall 100.0, F1 100.0, duplicates 0.0 %" in " ".join(said.out.split())
    written = read(scores)
    assert written["predictions"] == "annotations.json"
    assert "maxDets" in written["protocol"]
    assert written["scores"].keys() == {"all"}
    assert_perfect(written["scores"]["all"])


def test_a_bare_results_list_is_scored(cli: Cli, truth: Path, tmp_path: Path) -> None:
    rows = [row | {"score": 0.9} for row in read(truth)["annotations"]]
    (tmp_path / "results.json").write_text(json.dumps(rows), encoding="utf-8")
    said = cli("evaluate", "--truth", truth, "--predictions", tmp_path / "results.json", "--out", tmp_path / "scores.json")
    assert said.code == 0
    assert_perfect(read(tmp_path / "scores.json")["scores"]["all"])


def test_a_method_is_scored_group_by_group(
    cli: Cli, fakes: list[dict[str, str]], photos: Path, truth: Path, tmp_path: Path
) -> None:
    scores = tmp_path / "scores.json"
    said = cli("evaluate", "--truth", truth, "--images", photos, "--variant", "paper", "--by", "shape", "--out", scores)
    assert said.code == 0, said
    assert fakes == [{"method": "zip", "models": "tiny", "variant": "paper", "device": "auto"}]
    written = read(scores)
    assert written["provenance"]["method"] == "zip"
    assert list(written["scores"]) == ["shape wide", "shape tall", "all"]
    for group in written["scores"].values():
        assert_perfect(group)
    images = [written["scores"][group]["class-aware masks"]["n_images"] for group in written["scores"]]
    assert images == [5, 3, 8]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--truth", "TRUTH"], ["expected either --images DIR or --predictions FILE, got neither"]),
        (["--truth", "TRUTH", "--images", "PHOTOS", "--predictions", "TRUTH"], ["got both"]),
        (["--truth", "MISSING", "--images", "PHOTOS"], ["expected a COCO JSON file", "No such file"]),
        (["--truth", "NAMES", "--images", "PHOTOS"], ["it is not JSON"]),
        (["--truth", "TRUTH", "--images", "EMPTY"], ["0.png among them"]),
        (["--truth", "TRUTH", "--predictions", "MISSING"], ["No such file"]),
        (["--truth", "TRUTH", "--predictions", "TRUTH"], ["finite score", "is it a truth file?"]),
        (["--truth", "TRUTH", "--images", "PHOTOS", "--by", "weather"], ["the field 'weather'"]),
        (["--truth", "TRUTH", "--predictions", "RESULTS", "--out", "EMPTY"], ["EMPTY is a folder"]),
        (["--truth", "TRUTH", "--predictions", "RESULTS", "--out", "NAMES/scores.json"], ["expected a folder to write to"]),
    ],
)
def test_wrong_evaluations_are_refused(
    cli: Cli, fakes: Any, places: dict[str, Path], truth: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    (tmp_path / "results.json").write_text("[]", encoding="utf-8")
    named = {**places, "TRUTH": truth, "RESULTS": tmp_path / "results.json"}
    said = cli("evaluate", *placed(arguments, named))
    shown = ("images: ", "loading ")
    said = said._replace(err="".join(line for line in said.err.splitlines(True) if not line.startswith(shown)))
    assert_refused(said, *(word.replace("EMPTY", str(named["EMPTY"])) for word in words))


# Reproduce

RECIPE = recipe_head() + '[[run]]\nname = "zip, twice"\nexpected = { "all AP" = 40.0 }\n'


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    return tmp_path / "recipe.toml"


@pytest.mark.parametrize(
    ("value", "code", "off"),
    [
        (40.4, 0, []),
        (41.0, 1, ["off: zip, twice: all AP is 41.0, expected 40.0 +- 0.5"]),
        (None, 1, ["off: zip, twice: all AP is None, expected 40.0 +- 0.5"]),
    ],
)
def test_figures_off_by_more_than_the_tolerance_are_named(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, recipe: Path, tmp_path: Path, value: float | None, code: int, off: list[str]
) -> None:
    def measured(*_: Any, on_found: Callable[[str, CocoFile], None], **__: Any) -> dict[str, Figures]:
        on_found("zip, twice", CocoFile())
        return {"zip, twice": {"all AP": value}}

    monkeypatch.setattr(annofree.experiments.measure, "measure_runs", measured)
    said = cli("reproduce", recipe, "--out", tmp_path / "new" / "out")
    assert said.code == code
    assert [line for line in said.out.splitlines() if line.startswith("off: ")] == off
    assert "A recipe" in said.out
    written = read(tmp_path / "new" / "out" / "figures.json")
    assert (written["recipe"], written["figures"]) == ("recipe.toml", {"zip, twice": {"all AP": value}})
    assert (tmp_path / "new" / "out" / "zip, twice.json").is_file()
    assert cli("reproduce", recipe, "--limit", 1).code == 0  # compares nothing


def test_wrong_recipes_are_refused(cli: Cli, recipe: Path, tmp_path: Path) -> None:
    assert_refused(cli("reproduce", tmp_path / "none.toml"), "expected a recipe at", "No such file")
    assert_refused(cli("reproduce", recipe, "--out", recipe), "expected a folder to write to")
    assert_refused(cli("reproduce", recipe, "--out", recipe / "out"), "expected a folder to write to")
    assert_refused(cli("reproduce", recipe, "--only", "zip"), "unknown run 'zip'", "Known: zip, twice")
    assert_refused(cli("reproduce", recipe), "expected a COCO JSON file at")


# World


@drawing
@COCO_DECODES
def test_a_world_is_drawn(cli: Cli, tmp_path: Path) -> None:
    said = cli("world", "emoji", "--out", tmp_path / "w", "--scenes", 2, "--split", "touching", "--side", 96, "--seed", 5)
    assert said.code == 0
    truth = COCO(str(tmp_path / "w" / "truth.json"))
    rows = truth.loadAnns(truth.getAnnIds())
    assert said.out.splitlines()[-1] == f"2 scenes, {len(rows)} objects: {tmp_path}/w/truth.json"
    assert len(rows) >= 4
    assert all(truth.annToMask(row).sum() == row["area"] for row in rows)
    for image in truth.loadImgs(truth.getImgIds()):
        with PIL.Image.open(tmp_path / "w" / "images" / image["file_name"]) as picture:
            assert picture.size == (96, 96)
    assert len(read(tmp_path / "w" / "captions.json")["annotations"]) == 2


def test_wrong_worlds_are_refused(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "w"
    assert_refused(
        cli("world", "emoji", "--out", out, "--split", "toching"), "unknown split 'toching'; did you mean 'touching'?"
    )
    assert_refused(cli("world", "emoji", "--out", out, "--font", tmp_path / "no.ttf"), f"there is none at {tmp_path}/no.ttf")
    assert cli("world", "emoji", "--out", out, "--side", 3).code == 2
    assert not out.exists()


# Help

COMMANDS = [
    *("", "segment", "relabel", "merge", "evaluate", "reproduce", "index", "retrieve", "mask"),
    *("export", "convert", "report", "review", "explain", "compare"),
    *("train", "train tiny-clip", "train tiny-sam", "train zutis", "train selfmask", "world", "world emoji"),
]


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(cli: Cli, command: str, flag: str) -> None:
    said = cli(*command.split(), flag)
    assert (said.code, said.err) == (0, "")
    assert f"Usage: annofree {command}".strip() in said.out
    assert "--help" in said.out


def test_no_command_shows_help(cli: Cli) -> None:
    said = cli()
    assert said.code == 2
    assert "segment" in said.out + said.err


def test_an_unknown_command_is_a_usage_error(cli: Cli) -> None:
    said = cli("segmnt")
    assert said.code == 2
    assert "segmnt" in said.err


LIGHT = [
    *("", "--help", "segment --help", "train zutis --help", "models list --help"),
    *("segmnt", "segment", "segment --classes dog", "segment EMPTY --classes dog --limit 0", "segment EMPTY --lmit 3"),
    *("segment EMPTY", "segment EMPTY --classes dog --classes-file NAMES", "segment EMPTY --classes-file MISSING"),
    *(
        "evaluate",
        "evaluate --truth MISSING",
        "evaluate --truth MISSING --predictions MISSING",
        "evaluate --truth NAMES --task x",
    ),
    *("finetune EMPTY --labels NAMES --fraction 2", "models show tinny", "models pull tinny", "world", "world emoji --side 3"),
]
"""Calls that do no work: help, and what can be refused before any image or model is looked at."""

HEAVY = [
    *(
        "torch",
        "torchvision",
        "transformers",
        "open_clip",
        "timm",
        "huggingface_hub",
        "safetensors",
        "numpy",
        "scipy",
        "skimage",
    ),
    *("PIL", "pycocotools", "faster_coco_eval", "sklearn", "matplotlib", "onnxruntime", "faiss", "pyarrow"),
]


def test_help_and_wrong_calls_import_nothing_heavy(places: dict[str, Path]) -> None:
    """All in one process that has imported nothing, one after the other."""
    calls = [placed(call.split(), places) for call in LIGHT]
    command = [sys.executable, "-c", CALLS, json.dumps([calls, HEAVY])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for call, (code, said, imported) in zip(LIGHT, json.loads(done.stdout), strict=True):
        assert not imported, f"annofree {call}"
        assert code == (0 if call.endswith("--help") else 2), (call, said)
        assert "Usage: annofree" in said or said.startswith("annofree: "), call
