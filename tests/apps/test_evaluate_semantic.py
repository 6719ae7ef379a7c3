"""``annofree evaluate --task semantic``, and recipes of label maps in ``annofree reproduce``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from tests.support.cli import Cli, Said
from tests.support.recipes import recipe_head

import annofree.experiments.measure
from annofree.datasets.benchmarks.coco_object import open_coco_instances
from annofree.evaluation.predict_semantic import score_method
from annofree.evaluation.protocols.semantic import PROTOCOLS, find_semantic_protocol
from annofree.experiments.measure import Figures
from annofree.formats.coco import CocoFile
from annofree.formats.label_maps import ClassList, write_label_map
from annofree.methods.build import MethodSpec, build_method
from annofree.methods.components import Models
from annofree.structures import Detections, LabelMap
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.paper_world import NAMES, draw_paper_scenes


def on_fakes(method: str, variant: str = "default") -> Any:
    models = Models("tiny", "cpu", objectness="none")
    return build_method(method, models.with_parts(clip=FakeClip(), sam=FakeSam()), variant)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Every method on the fakes; what was asked for is recorded."""
    asked: list[dict[str, str]] = []

    def build(spec: MethodSpec, vocabulary: Any = None) -> Any:
        asked.append({"method": spec.method, "models": spec.models, "variant": spec.variant, "device": spec.device})
        return on_fakes(spec.method, spec.variant)

    monkeypatch.setattr(MethodSpec, "build", build)
    return asked


SCENES = draw_paper_scenes()[1:4]
PLACES = ("tall.png", "deep/er/wide.png", "deep/a.b.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for place, scene in zip(PLACES, SCENES, strict=True):
        (tmp_path / "photos" / place).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(scene.image.pixels).save(tmp_path / "photos" / place)
    return tmp_path / "photos"


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """The truth of the images as COCO instances, in another order of names than they are asked in."""
    names = sorted(NAMES, reverse=True)
    file = CocoFile.with_categories({10 * (k + 1): name for k, name in enumerate(names)})
    for place, scene in zip(PLACES, SCENES, strict=True):
        id_ = file.add_image(place, scene.image.size)
        found = Detections.from_masks(scene.masks, [names.index(n) for n in scene.names], [1.0] * len(scene.masks), names)
        rows = found.to_coco(id_, [10 * (k + 1) for k in range(len(names))])
        file.add_annotations([{k: v for k, v in row.items() if k != "score"} for row in rows])
    file.write(tmp_path / "truth.json")
    return tmp_path / "truth.json"


def labeled(folder: Path) -> Path:
    """The truth as a folder of label maps."""
    for place, scene in zip(PLACES, SCENES, strict=True):
        labels = np.zeros(scene.image.size, np.int32)
        for mask, name in zip(scene.masks, scene.names, strict=True):
            labels[mask] = 1 + NAMES.index(name)
        said = LabelMap(labels, ("background", *NAMES), 0)
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        write_label_map(folder / place, said)
        ClassList.of(said).write(folder)
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def assert_refused(said: Said, *words: str) -> None:
    assert (said.code, said.out) == (2, ""), said
    lines = [line for line in said.err.splitlines() if not line.startswith(("images: ", "label maps: ", "loading "))]
    assert len(lines) == 1 and lines[0].startswith("annofree: ")
    for word in words:
        assert word in said.err


EVALUATE = ("evaluate", "--task", "semantic")


def test_what_segment_wrote_is_scored_as_the_method_is(
    cli: Cli, fakes: list[dict[str, str]], photos: Path, truth: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    classes = ("--classes", ", ".join(NAMES), "--method", "maskclip")
    assert cli("segment", photos, *classes, "--task", "semantic", "--out", out).code == 0
    maps = (*EVALUATE, "--truth", truth, "--predictions", out / "labels", "--out", tmp_path / "new" / "maps.json")
    said = cli(*maps)
    assert said.code == 0, said
    by_method = (*EVALUATE, "--truth", truth, "--images", photos, "--method", "maskclip", "--out", tmp_path / "method.json")
    assert cli(*by_method).code == 0
    assert [call["method"] for call in fakes] == ["maskclip", "maskclip"]
    assert fakes[-1] == {"method": "maskclip", "models": "tiny", "variant": "default", "device": "auto"}

    from_maps, from_method = read(tmp_path / "new" / "maps.json"), read(tmp_path / "method.json")
    assert from_maps["scores"] == from_method["scores"]  # in batches of other sizes: the fakes look at images one by one
    rules = find_semantic_protocol("default")
    result = score_method(on_fakes("maskclip"), open_coco_instances(truth, photos), rules, lambda done, total: None)
    assert from_method == json.loads(json.dumps(result.to_json_dict()))
    assert from_maps["predictions"] == "labels" and "provenance" not in from_maps
    assert from_maps["protocol"]["name"] == "default"
    scores = from_maps["scores"]
    assert scores["mean_iou"] > 0.85 and scores["n_images"] == 3
    assert scores["iou"]["apple"] is None and scores["iou"]["umbrella"] > 0.85
    for name in ("maps.png", "../method.png"):
        with PIL.Image.open(tmp_path / "new" / name) as matrix:
            assert min(matrix.size) > 50
    assert f"{100 * scores['mean_iou']:.1f}" in said.out
    assert f"instances of {truth.name}, protocol default: " in " ".join(said.out.split())
    assert "umbrella" in said.out


def test_label_maps_are_truth_as_well(cli: Cli, photos: Path, tmp_path: Path) -> None:
    maps = labeled(tmp_path / "maps")
    said = cli(*EVALUATE, "--truth", maps, "--predictions", maps, "--out", tmp_path / "scores.json")
    assert said.code == 0
    scores = read(tmp_path / "scores.json")["scores"]
    assert (scores["mean_iou"], scores["pixel_accuracy"], scores["n_images"]) == (1, 1, 3)
    told = cli(*EVALUATE, "--truth", maps, "--predictions", maps, "--json")
    assert json.loads(told.out) == read(tmp_path / "scores.json")


def test_a_protocol_sets_the_rules(cli: Cli, truth: Path, tmp_path: Path) -> None:
    command = (*EVALUATE, "--truth", truth, "--predictions", labeled(tmp_path / "maps"), "--out", tmp_path / "scores.json")
    assert cli(*command, "--protocol", "clip-diy-coco").code == 0
    written = read(tmp_path / "scores.json")
    assert (written["protocol"]["name"], written["protocol"]["truth_side"]) == ("clip-diy-coco", 448)
    ious = written["scores"]["iou"]
    assert {name for name, iou in ious.items() if iou is None} == {"apple", "boat"}
    assert written["scores"]["mean_iou"] == pytest.approx(sum(iou or 0 for iou in ious.values()) / 7)  # absent counts as 0


def test_a_split_is_opened(cli: Cli, fakes: Any, tmp_path: Path) -> None:
    """VOC's layout with two splits of one image each."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / "voc" / folder).mkdir(parents=True)
    for name, scene in {"train": SCENES[0], "val": SCENES[1]}.items():
        PIL.Image.fromarray(scene.image.pixels).save(tmp_path / "voc" / "JPEGImages" / f"{name}.jpg")
        PIL.Image.fromarray(scene.masks[0].astype(np.uint8) * 7).save(tmp_path / "voc" / "SegmentationClass" / f"{name}.png")
        (tmp_path / "voc" / "ImageSets" / "Segmentation" / f"{name}.txt").write_text(f"{name}\n", encoding="utf-8")
    pixels = {}
    for split in ("train", "val"):
        command = (*EVALUATE, "--truth", tmp_path / "voc", "--protocol", "voc21", "--method", "maskclip", "--split", split)
        assert cli(*command, "--out", tmp_path / "scores.json").code == 0
        pixels[split] = read(tmp_path / "scores.json")["scores"]["n_pixels"]
    assert pixels == {"train": 160 * 96, "val": 104 * 168}


def test_without_a_method_clip_diy_is_asked(cli: Cli, fakes: list[dict[str, str]], photos: Path, truth: Path) -> None:
    assert cli(*EVALUATE, "--truth", truth, "--images", photos).code == 0
    assert [call["method"] for call in fakes] == ["clip_diy"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "semantics"], ["unknown task 'semantics'; did you mean 'semantic'"]),
        (["--protocol", "voc12"], ["unknown protocol 'voc12'; did you mean 'voc21'"]),
        (["--split", "val"], ["expected no split"]),
        (["--by", "split"], ["expected no --by with --task semantic"]),
        (["--predictions", "MAPS", "--images", "PHOTOS"], ["expected either --images DIR or --predictions DIR, got both"]),
        (["--predictions", "PHOTOS"], ["expected classes.json beside the label maps in"]),
        (["--predictions", "FEWER"], ["3 have none, tall.png among them"]),
        (["--predictions", "OTHERS"], ["1 that it does not have, 'zebra' among them"]),
        (["--predictions", "SMALLER"], ["tall: "]),
        (["--truth", "MISSING", "--predictions", "MAPS"], ["No such file"]),
        (
            ["--images", "PHOTOS", "--method", "zip"],
            ["expected a method that names every pixel, got Zip, which finds instances"],
        ),
        (["--method", "maskclip"], ["expected the image of tall to run a method on", "--images"]),
        (["--images", "MAPS/deep", "--method", "maskclip"], ["tall.png among them"]),
        (["--predictions", "MAPS", "--out", "MAPS"], ["is a folder; name one in it"]),
        (["--predictions", "MAPS", "--out", "matrix.png"], ["such as matrix.json, for the matrix goes to matrix.png"]),
        (["--predictions", "MAPS", "--out", "TRUTH/scores.json"], ["expected a folder to write to"]),
    ],
)
def test_wrong_calls_are_refused(
    cli: Cli, fakes: Any, photos: Path, truth: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    places = {"MAPS": labeled(tmp_path / "maps"), "PHOTOS": photos, "TRUTH": truth, "MISSING": tmp_path / "missing"}
    for name, labels, classes in (
        ("FEWER", None, ("dog",)),
        ("OTHERS", 1, ("background", "zebra")),
        ("SMALLER", 0, ("apple",)),
    ):
        places[name] = tmp_path / name.lower()
        ClassList(classes, 0 if len(classes) > 1 else None).write(places[name])
        for place, scene in zip(PLACES, SCENES, strict=True) if labels is not None else ():
            size = (8, 8) if name == "SMALLER" else scene.image.size
            (places[name] / place).parent.mkdir(parents=True, exist_ok=True)
            write_label_map(places[name] / place, LabelMap(np.full(size, labels, np.int32), classes))
    heads = [(argument, *argument.partition("/")) for argument in arguments]
    given = [str(places[head]) + slash + rest if head in places else whole for whole, head, slash, rest in heads]
    assert_refused(cli(*EVALUATE, "--truth", truth, *given), *words)


@pytest.mark.parametrize("option", [("--protocol", "voc21"), ("--split", "val")])
def test_instances_have_no_protocol(cli: Cli, photos: Path, truth: Path, option: tuple[str, str]) -> None:
    said = cli("evaluate", "--truth", truth, "--images", photos, *option)
    assert_refused(said, "expected --protocol and --split with --task semantic only; leave them out")


def test_the_folder_for_the_scores_is_tried_before_the_work(cli: Cli, fakes: list[Any], photos: Path, truth: Path) -> None:
    said = cli(*EVALUATE, "--truth", truth, "--images", photos, "--method", "maskclip", "--out", truth / "scores.json")
    assert_refused(said, "expected a folder to write to")
    assert fakes == []


def test_help_tells_the_options(cli: Cli) -> None:
    told = cli("evaluate", "--help").out
    for option in ("--task", "--protocol", "--split", "--method"):
        assert option in told
    named = re.search(r"example (\S+) or (\S+?)\.", " ".join(told.split()))
    assert named is not None
    assert set(named.groups()) <= set(PROTOCOLS)


# Reproduce

RECIPE = recipe_head() + '[[run]]\nname = "first"\nexpected = { "all mIoU" = 40.0 }\n'
MAPS: Figures = {
    "plain mIoU": 51.0,
    "plain mIoU of things": 9.0,
    "plain pixel accuracy": 9.0,
    "touching mIoU": 52.0,
    "cluttered mIoU": 53.0,
    "all mIoU": 40.2,
    "all mIoU of things": 55.0,
    "all pixel accuracy": None,
}
MASKS: Figures = {"all AP": 61.0, "all AR100": 62.0, "all AP75": 9.0}


def columns(cli: Cli, monkeypatch: pytest.MonkeyPatch, folder: Path, figures: dict[str, Figures]) -> list[list[str]]:
    """Run a recipe that gives these figures; return the rows of the table that is printed, the names of the columns first."""
    more = "".join(f"[[run]]\nname = {name!r}\n" for name in list(figures)[1:])
    (folder / "recipe.toml").write_text(RECIPE + more, encoding="utf-8")
    monkeypatch.setattr(annofree.experiments.measure, "measure_runs", lambda *_, **__: figures)
    said = cli("reproduce", folder / "recipe.toml")
    assert said.code == (0 if figures["first"].get("all mIoU") else 1)
    bars = [re.split("[│┃]", line)[1:-1] for line in said.out.splitlines() if line.startswith(("│", "┃"))]
    table = [[cell.strip() for cell in bar] for bar in bars]
    rows = [row for row in table if row[0]]
    head = [row for row in table if not row[0]]  # names may take several lines
    return [[" ".join(filter(None, parts)) for parts in zip(*head, strict=True)], *rows]


def test_label_maps_have_their_columns(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown = ["plain mIoU", "touching mIoU", "cluttered mIoU", "all mIoU", "all mIoU of things", "all pixel accuracy"]
    rows = columns(cli, monkeypatch, tmp_path, {"first": MAPS})
    assert rows == [["", *shown], ["first", "51.0", "52.0", "53.0", "40.2", "55.0", "-"]]


def test_each_run_shows_what_it_has(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    figures: dict[str, Figures] = {"first": {"all mIoU": 40.0}, "second": MASKS}
    assert columns(cli, monkeypatch, tmp_path, figures) == [
        ["", "all AP", "all AR100", "all mIoU"],
        ["first", "-", "-", "40.0"],
        ["second", "61.0", "62.0", "-"],
    ]
    assert columns(cli, monkeypatch, tmp_path, {"first": MASKS}) == [["", "all AP", "all AR100"], ["first", "61.0", "62.0"]]
