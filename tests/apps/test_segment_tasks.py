"""``annofree segment --task``: label maps and panoptic maps beside instances, and the files that they leave."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from tests.support.cli import Cli, Said

from annofree.detections.panoptic import PanopticMap, merge_panoptic
from annofree.formats.label_maps import ClassList, read_label_map
from annofree.formats.panoptic import PanopticFile
from annofree.io.images import read_image
from annofree.methods.build import MethodSpec, build_method
from annofree.methods.components import Models
from annofree.methods.dense.clip_diy import VARIANTS, ClipDiy
from annofree.methods.dense.dense_clip import DenseClip
from annofree.methods.zip import Zip
from annofree.structures import Image, LabelMap, Vocabulary
from annofree.testing.fakes import FakeClip, FakeObjectness, FakeSam
from annofree.testing.paper_world import COLORS, NAMES, draw_paper_scenes

ALL = ", ".join(NAMES)
EVERYTHING = "instance,semantic,panoptic"


def on_fakes(method: str, variant: str = "default") -> Any:
    """A method of the catalogue on the fakes; CLIP-DIY with few and small crops, for the fakes see the same in them."""
    if method == "clip_diy":
        return ClipDiy(FakeClip(), FakeObjectness(), replace(VARIANTS[variant], side=16, canvas=64, scales=(0, 1)))
    models = Models("tiny", "cpu", objectness="none")
    return build_method(method, models.with_parts(clip=FakeClip(), sam=FakeSam()), variant)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Every method on the fakes; what was asked for is recorded."""
    asked: list[dict[str, str]] = []

    def build(spec: MethodSpec, vocabulary: Vocabulary) -> Any:
        assert (spec.precision, spec.policy, spec.negatives) == ("float32", "answer", ())
        objectness = {"objectness": spec.objectness} if spec.entry.objectness else {}
        asked.append({"method": spec.method, "variant": spec.variant, **objectness})
        return on_fakes(spec.method, spec.variant)

    monkeypatch.setattr(MethodSpec, "build", build)
    return asked


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which methods encoded a batch, in order."""
    calls: list[str] = []
    for kind in (Zip, ClipDiy, DenseClip):

        def counted(self: Any, images: Sequence[Image], encode: Any = kind.encode) -> Any:
            calls.append(self.provenance["method"])
            return encode(self, images)

        monkeypatch.setattr(kind, "encode", counted)
    return calls


def save(place: Path, image: Image) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(image.pixels).save(place)


PLACES = {"touching": "tall.png", "two classes": "deep/er/wide.png", "edge": "deep/edge.png", "empty": "empty.png"}
"""Scenes of the paper world, wide and tall, as files."""

SCENES = {PLACES[scene.image.id]: scene for scene in draw_paper_scenes() if scene.image.id in PLACES}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for place, scene in SCENES.items():
        save(tmp_path / "photos" / place, scene.image)
    return tmp_path / "photos"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def files_in(folder: Path) -> set[str]:
    """All but what a run that is stopped goes on from."""
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    return {name for name in found if not name.startswith("shards/")}


def results(endings: Sequence[str]) -> set[str]:
    """One file an image for each of ``overlays/*.jpg``, ..."""
    return {e.replace("*", place.removesuffix(".png")) for e in endings for place in SCENES}


def truth(place: str) -> np.ndarray[Any, np.dtype[np.int32]]:
    """What each pixel of a scene is: 0 the background, then the names in order."""
    scene = SCENES[place]
    labels = np.zeros(scene.image.size, np.int32)
    for mask, name in zip(scene.masks, scene.names, strict=True):
        labels[mask] = 1 + NAMES.index(name)
    return labels


def label_maps(out: Path) -> dict[str, LabelMap]:
    classes = ClassList.read(out / "labels")
    return {place: read_label_map(out / "labels" / place, classes) for place in SCENES}


def assert_refused(said: Said, *words: str) -> None:
    assert (said.code, said.out) == (2, ""), said
    assert said.err.startswith("annofree: ") and said.err.count("\n") == 1
    for word in words:
        assert word in said.err


# One task each, and all at once

LEFT = {
    "instance": {"annotations.json", *results(["overlays/*.jpg"])},
    "semantic": {"labels/classes.json", "labels/shares.json", *results(["labels/*.png", "overlays-semantic/*.jpg"])},
    "panoptic": {"panoptic.json", *results(["panoptic/*.png"])},
}


@pytest.mark.parametrize(
    ("task", "methods"),
    [
        ("instance", ["zip"]),
        ("semantic", ["clip_diy"]),
        ("panoptic", ["zip", "clip_diy"]),
        ("semantic,instance", ["zip", "clip_diy"]),
        (EVERYTHING, ["zip", "clip_diy"]),
    ],
)
def test_each_task_leaves_its_files_and_no_others(
    cli: Cli, fakes: list[dict[str, str]], encoded: list[str], photos: Path, tmp_path: Path, task: str, methods: list[str]
) -> None:
    out = tmp_path / "out"
    stuff = "tree" if "pan" in task else ""
    said = cli("segment", photos, "--classes", ALL, "--task", task, "--stuff", stuff, "--batch-size", 4, "--out", out)
    assert said.code == 0, said
    wanted = task.split(",")
    assert files_in(out) == {"run.json"}.union(*(LEFT[t] for t in wanted))
    assert [call["method"] for call in fakes] == methods
    assert [call.get("objectness") for call in fakes] == ["found" if m == "clip_diy" else None for m in methods]
    assert encoded == methods  # four images are one batch
    run = read(out / "run.json")
    assert (run["settings"]["tasks"], list(run["settings"]["methods"].values())) == (wanted, methods)
    assert run["timings"]["images"] == 4
    said_of = run["provenance"].get("methods", [run["provenance"]])
    assert [provenance["method"] for provenance in said_of] == methods


@pytest.mark.parametrize("method", ["maskclip", "clip_surgery"])
def test_a_method_that_does_both_is_loaded_and_encodes_once(
    cli: Cli, fakes: list[dict[str, str]], encoded: list[str], photos: Path, tmp_path: Path, method: str
) -> None:
    out = tmp_path / "out"
    said = cli("segment", photos, "--classes", ALL, "--task", EVERYTHING, "--method", method, "--batch-size", 2, "--out", out)
    assert said.code == 0, said
    assert fakes == [{"method": method, "variant": "default"}]
    assert encoded == [method, method]  # two batches of two
    assert read(out / "run.json")["provenance"]["method"] == method
    assert files_in(out) == {"run.json"}.union(*LEFT.values())


def test_methods_joined_by_plus(cli: Cli, fakes: list[dict[str, str]], photos: Path, tmp_path: Path) -> None:
    command = ("segment", photos, "--classes", ALL, "--task", "panoptic", "--out", tmp_path / "out", "--variant", "denoised")
    assert cli(*command, "--method", "maskclip+zip").code == 0
    assert fakes == [{"method": "zip", "variant": "default"}, {"method": "maskclip", "variant": "denoised"}]
    assert read(tmp_path / "out" / "run.json")["settings"]["methods"] == {"instance": "zip", "semantic": "maskclip"}


def test_objectness_is_passed_on(cli: Cli, fakes: list[dict[str, str]], photos: Path, tmp_path: Path) -> None:
    command = ("segment", photos, "--classes", ALL, "--task", "semantic", "--limit", 1, "--out", tmp_path / "out")
    assert cli(*command, "--objectness", "tokencut").code == 0
    assert fakes == [{"method": "clip_diy", "variant": "default", "objectness": "tokencut"}]


# Label maps


def test_label_maps_name_every_pixel(cli: Cli, fakes: Any, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = cli("segment", photos, "--classes", ALL, "--task", "semantic", "--method", "maskclip", "--out", out, "--quiet")
    assert said == Said(0, "", "")
    for place, found in label_maps(out).items():
        assert found.names == ("background", *NAMES) and found.background == 0
        assert found.size == SCENES[place].image.size
        assert (found.labels == truth(place)).mean() > 0.95  # cells of 8 px, drawn to pixels
        assert set(np.unique(found.labels)) == set(np.unique(truth(place)))
        with PIL.Image.open(out / "overlays-semantic" / place.replace("png", "jpg")) as overlay:
            assert overlay.width >= found.size[1] and overlay.height >= found.size[0]


def test_shares_are_in_the_summary_and_beside_the_maps(cli: Cli, fakes: Any, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = cli("segment", photos, "--classes", ALL, "--task", "semantic", "--out", out, "--json")
    assert (said.code, said.err) == (0, "")
    summary = json.loads(said.out)
    assert summary == read(out / "run.json")
    by_image = {place.removesuffix(".png"): found.compute_shares() for place, found in label_maps(out).items()}
    written = read(out / "labels" / "shares.json")
    assert written["pictures"] == by_image
    assert written["mean"] == summary["shares"]
    for name, share in summary["shares"].items():
        assert share == pytest.approx(sum(of_one.get(name, 0) for of_one in by_image.values()) / 4)
    assert sum(summary["shares"].values()) == pytest.approx(1)
    assert list(summary["shares"]) == sorted(summary["shares"], key=lambda name: -summary["shares"][name])
    assert by_image["empty"] == {"background": 1.0}
    assert (summary["instances"], summary["failed"]) == (0, {})


def test_shares_are_told(cli: Cli, fakes: Any, tmp_path: Path) -> None:
    scene = draw_paper_scenes()[0]
    save(tmp_path / "a.png", scene.image)
    out = tmp_path / "out"
    said = cli("segment", tmp_path / "a.png", "--classes", "apple", "--task", "instance,semantic", "--out", out)
    assert said.code == 0
    first, second, third = said.out.splitlines()
    assert first.startswith("1 instance in 1 image; ")
    assert third == f"written: {out}/annotations.json, {out}/overlays, {out}/labels, {out}/overlays-semantic"
    share = 100 * scene.masks[0].mean()
    assert second == f"mean shares: background {100 - share:.1f} %, apple {share:.1f} %"


def test_one_class(cli: Cli, fakes: Any, photos: Path, tmp_path: Path) -> None:
    command = ("segment", photos, "--classes", "umbrella", "--task", EVERYTHING, "--out", tmp_path / "out")
    assert cli(*command, "--method", "zip+maskclip").code == 0
    maps = label_maps(tmp_path / "out")
    assert {found.names for found in maps.values()} == {("background", "umbrella")}
    umbrella = truth("deep/er/wide.png") == 1 + NAMES.index("umbrella")
    assert ((maps["deep/er/wide.png"].labels == 1) == umbrella).mean() > 0.95
    file = PanopticFile.read(tmp_path / "out" / "panoptic.json")
    (row,) = (a for a in file.annotations if a["segments_info"])
    assert row["file_name"] == "deep/er/wide.png"
    assert np.array_equal(file.read_segments(row) == 1, umbrella)


@pytest.mark.parametrize("listed", ["background", "Background"])
def test_a_background_that_is_asked_for_is_the_background(
    cli: Cli, fakes: Any, photos: Path, tmp_path: Path, listed: str
) -> None:
    out = tmp_path / "out"
    said = cli("segment", photos, "--classes", f"{ALL}, {listed}", "--task", "semantic", "--method", "maskclip", "--out", out)
    assert said.code == 0
    for place, found in label_maps(out).items():
        assert found.names == (*NAMES, listed) and found.background == len(NAMES)
        assert (found.labels == (truth(place) - 1) % 7).mean() > 0.95  # the background is the last


def test_300_classes_are_written_in_16_bits(cli: Cli, fakes: Any, photos: Path, tmp_path: Path) -> None:
    names, out = tmp_path / "names.txt", tmp_path / "out"
    names.write_text("\n".join([f"thing {k}" for k in range(299 - len(NAMES))] + list(NAMES)), encoding="utf-8")
    command = ("segment", photos, "--classes-file", names, "--task", EVERYTHING, "--stuff", "tree", "--quiet", "--out", out)
    assert cli(*command, "--method", "zip+maskclip").code == 0
    assert ClassList.read(out / "labels").void == 65535
    for place, found in label_maps(out).items():
        assert len(found.names) == 300
        with PIL.Image.open(out / "labels" / place) as image:
            assert image.mode == "I;16"
        ids = np.where(truth(place) > 0, truth(place) + 299 - len(NAMES), 0)
        assert (found.labels == ids).mean() > 0.95
    assert max(found.labels.max() for found in label_maps(out).values()) > 255


# Panoptic maps


def test_panoptic_maps_go_there_and_back(cli: Cli, fakes: Any, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = cli("segment", photos, "--classes", ALL, "--task", EVERYTHING, "--stuff", "tree,boat", "--out", out)
    assert said.code == 0
    file, labels = PanopticFile.read(out / "panoptic.json"), label_maps(out)
    things = {row["name"]: row["isthing"] for row in file.categories}
    assert things == {name: int(name not in ("tree", "boat")) for name in NAMES}
    assert {row["file_name"] for row in file.annotations} == set(SCENES)
    places = {row["file_name"]: row for row in read(out / "annotations.json")["images"]}
    for row in file.annotations:
        place, size = row["file_name"], SCENES[row["file_name"]].image.size
        assert places[place]["panoptic"] == f"panoptic/{place}"
        segments = file.read_segments(row)
        assert segments.shape == size
        read_back = PanopticMap.from_coco(segments, row["segments_info"], file.categories)
        found = on_fakes("zip").instances(read_image(photos / place), ALL)  # fakes look at images one by one in any batch
        joined = merge_panoptic(found, labels[place], stuff=["tree", "boat"])
        assert np.array_equal(segments, joined.segments)
        assert read_back.names == joined.names
        assert read_back.infos == joined.infos
        kinds = sorted((NAMES[info.class_id], info.is_thing) for info in joined.infos)
        assert kinds == sorted((name, name != "tree") for name in SCENES[place].names)


def test_without_stuff_all_are_things(cli: Cli, fakes: Any, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = cli("segment", photos, "--classes", ALL, "--task", "panoptic", "--out", out)
    assert said.code == 0
    assert said.out.endswith(f"\nwritten: {out}/panoptic.json\n")
    file = PanopticFile.read(out / "panoptic.json")
    assert all(row["isthing"] for row in file.categories)
    assert sum(len(row["segments_info"]) for row in file.annotations) == sum(len(s.names) for s in SCENES.values())


# Names of files


def test_pictures_of_one_stem_get_files_each(cli: Cli, fakes: Any, tmp_path: Path) -> None:
    (red, blue), out = (COLORS["apple"][0], COLORS["car"][0]), tmp_path / "out"
    for name, color in {"a.png": red, "a.webp": blue, "x/a.png": blue, "x/A.bmp": red, "b.c.png": red}.items():
        place = tmp_path / "in" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (40, 24), color).save(place, lossless=True)
    assert cli("segment", tmp_path / "in", "--classes", ALL, "--task", EVERYTHING, "--stuff", "car", "--out", out).code == 0
    rows = {row["file_name"]: row for row in read(out / "annotations.json")["images"]}
    assert rows.keys() == {"a.png", "a.webp", "x/a.png", "x/A.bmp", "b.c.png"}
    for key, folder in {"overlay": "overlays", "labels": "labels", "panoptic": "panoptic"}.items():
        named = {row[key] for row in rows.values()}
        assert len({name.lower() for name in named}) == len(rows)
        assert {f for f in files_in(out) if f.startswith(f"{folder}/") and not f.endswith("json")} == named
    classes = ClassList.read(out / "labels")
    for name, row in rows.items():
        asked = "apple" if name in ("a.png", "x/A.bmp", "b.c.png") else "car"
        assert read_label_map(out / row["labels"], classes).compute_shares() == {asked: 1.0}
        assert read(out / "labels" / "shares.json")["pictures"][row["labels"][7:-4]] == {asked: 1.0}
    file = PanopticFile.read(out / "panoptic.json")
    assert {f"panoptic/{row['file_name']}" for row in file.annotations} == {row["panoptic"] for row in rows.values()}
    assert rows["b.c.png"]["labels"] == "labels/b.c.png"


def test_names_that_other_systems_refuse_do_no_harm(cli: Cli, fakes: Any, tmp_path: Path) -> None:
    names = ["12:30.png", "12_30.png", "a\\b.png"]
    for name in names:
        save(tmp_path / "in" / name, draw_paper_scenes()[0].image)
    out = tmp_path / "out"
    assert cli("segment", tmp_path / "in", "--classes", "apple", "--task", EVERYTHING, "--out", out).code == 0
    rows = read(out / "annotations.json")["images"]
    assert [row["file_name"] for row in rows] == sorted(names)
    assert all((out / row[key]).is_file() for row in rows for key in ("overlay", "labels", "panoptic"))
    assert len({row["panoptic"] for row in rows}) == 3
    file = PanopticFile.read(out / "panoptic.json")
    assert all(np.array_equal(file.read_segments(row) == 1, draw_paper_scenes()[0].masks[0]) for row in file.annotations)


# What goes wrong


def test_a_picture_on_which_the_label_map_fails_is_named(
    cli: Cli, fakes: Any, monkeypatch: pytest.MonkeyPatch, photos: Path, tmp_path: Path
) -> None:
    semantic = ClipDiy.semantic

    def failing(self: ClipDiy, image: Any, classes: Any) -> LabelMap:
        if image.size == (160, 96):
            raise RuntimeError("no memory\nfor this")
        return semantic(self, image, classes)

    monkeypatch.setattr(ClipDiy, "semantic", failing)
    (photos / "broken.png").write_bytes(b"no image")
    out = tmp_path / "out"
    said = cli("segment", photos, "--classes", ALL, "--task", EVERYTHING, "--stuff", "tree", "--json", "--out", out)
    assert said.code == 1
    assert f"failed: {photos / 'tall.png'}: no memory\n" in said.err
    assert "broken.png" in said.err and said.err.count("\n") == 2
    summary = json.loads(said.out)
    assert set(summary["failed"]) == {str(photos / "tall.png"), str(photos / "broken.png")}
    assert (summary["timings"]["images"], summary["timings"]["failed"]) == (3, 2)
    others = {f for f in set().union(*LEFT.values()) if "tall" not in f}
    assert files_in(out) == {"run.json", "quarantine.json", *others}
    assert "tall" not in read(out / "labels" / "shares.json")["pictures"]
    assert len(PanopticFile.read(out / "panoptic.json").annotations) == len(read(out / "annotations.json")["images"]) == 3


WRONG: dict[str, tuple[list[str], list[str]]] = {
    "unknown task": (["--task", "semantik"], ["unknown task 'semantik'; did you mean 'semantic'"]),
    "unknown second task": (["--task", "instance,things"], ["unknown task 'things'", "Known: instance, panoptic, semantic"]),
    "method without the task": (
        ["--task", "semantic", "--method", "zip"],
        ["expected a method for semantic, but zip does instance; ask for --task instance"],
    ),
    "two methods for one task": (["--task", "panoptic", "--method", "zip+sam_clip"], ["sam_clip is left with none"]),
    "unknown second method": (
        ["--task", "panoptic", "--method", "zip+clip_dy"],
        ["unknown method 'clip_dy'; did you mean 'clip_diy'"],
    ),
    "unknown objectness": (
        ["--task", "semantic", "--objectness", "token-cut"],
        ["unknown objectness source 'token-cut'; did you mean 'tokencut' or 'maskcut'?"],
    ),
    "unknown objectness, not needed": (["--objectness", "fond"], ["unknown objectness source 'fond'; did you mean 'found'"]),
    "unknown stuff": (
        ["--task", "panoptic", "--stuff", "tre"],
        ["unknown stuff among the classes 'tre'; did you mean 'tree'?"],
    ),
    "stuff that is the background": (
        ["--task", "panoptic", "--classes", "tree, background", "--stuff", "background"],
        ["expected stuff with a name of its own, got 'background'"],
    ),
    "stuff without panoptic": (["--task", "semantic", "--stuff", "tree"], ["expected --stuff with --task panoptic only"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_calls_are_refused_in_one_line(cli: Cli, fakes: list[Any], photos: Path, tmp_path: Path, case: str) -> None:
    arguments, words = WRONG[case]
    assert_refused(cli("segment", photos, "--classes", ALL, "--out", tmp_path / "out", *arguments), *words)
    assert fakes == []
    assert not (tmp_path / "out").exists()


def test_models_without_what_the_objectness_is_made_of(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, photos: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(Models, "clip", FakeClip())
    command = ("segment", photos, "--classes", ALL, "--task", "semantic", "--models", "tiny-clip+tiny-sam")
    assert_refused(
        cli(*command, "--out", tmp_path / "out"),
        "expected models with a DINO and a saliency head, such as tiny-clip+tiny-sam+dino-vit-s-8+found, got",
    )
    assert not (tmp_path / "out").exists()


def test_the_ledger_looks_at_the_models_that_are_needed(cli: Cli, fakes: list[Any], photos: Path, tmp_path: Path) -> None:
    command = ("segment", photos, "--classes", ALL, "--max-tier", "S1", "--out", tmp_path / "out", "--models", "paper")
    assert_refused(cli(*command), "expected models of tier S1 at most, but sam-b is S2")
    assert_refused(cli(*command, "--task", "panoptic", "--method", "zip+maskclip"), "but sam-b is S2")
    assert fakes == []
    assert cli(*command, "--task", "semantic", "--objectness", "none").code == 0


# Help


def test_help_tells_the_options(cli: Cli) -> None:
    said = cli("segment", "--help")
    assert (said.code, said.err) == (0, "")
    told = " ".join(said.out.split())
    for option in ("--task", "--stuff", "--objectness", "--method", "--variant", "--models"):
        assert option in told
    sources = "found, found-bkg, tokencut, maskcut, cutler (the models' detector), instances, none"
    for text in ("instance, semantic, panoptic", sources, "joined by +", "joined by commas"):
        assert text in told
