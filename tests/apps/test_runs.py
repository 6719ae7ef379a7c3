"""Runs by the command line: inputs of all kinds, hostile images, parts, other names for what was kept."""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import typer
from tests.support.alike import assert_same_rows
from tests.support.cli import Cli, Said
from tests.support.paper import write_scenes
from typer.testing import CliRunner

from annofree.apps.cli.commands.merge import merge
from annofree.apps.cli.commands.relabel import relabel
from annofree.errors import AnnofreeError
from annofree.formats.panoptic import decode_segment_ids
from annofree.methods.build import MethodSpec, build_method
from annofree.methods.components import Models
from annofree.methods.dense.maskclip import MaskClip
from annofree.methods.zip import Zip
from annofree.methods.zutis import Zutis
from annofree.structures import Vocabulary
from annofree.testing.fakes import FakeClip, FakeObjectness, FakeSam, FakeZutis
from annofree.testing.paper_world import NAMES, draw_paper_scenes
from annofree.testing.tolerances import assert_same_pixels

ALL = ", ".join(NAMES)
FAKE_PARTS: dict[str, Any] = {"clip": FakeClip(), "sam": FakeSam(), "zutis": FakeZutis()}
SOURCE = Path(__file__).parents[2] / "benchmarks" / "hostile.py"


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every method on the fakes."""
    models = Models("tiny", "cpu", objectness="none").with_parts(**FAKE_PARTS)
    monkeypatch.setattr(MethodSpec, "build", lambda spec, _: build_method(spec.method, models, spec.variant))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "photos")


app = typer.Typer()
app.command()(merge)
app.command()(relabel)


def ask(*arguments: object) -> Said:
    """Run ``merge`` or ``relabel``; what is refused is what it would print."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    if isinstance(done.exception, AnnofreeError):
        return Said(2, "", str(done.exception))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Said(done.exit_code, done.stdout, done.stderr)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def finals(out: Path) -> dict[str, bytes]:
    paths = (
        path for path in out.rglob("*") if path.is_file() and path.relative_to(out).parts[0] not in ("shards", "encodings")
    )
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths if path.name != "run.json"}


# Going on


def test_a_complete_run_says_so_and_loads_nothing(
    cli: Cli, fakes: None, photos: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    (photos / "torn.png").write_bytes(b"torn")
    command = ("segment", photos, "--classes", ALL, "--out", tmp_path / "out")
    assert cli(*command).code == 1
    before = finals(tmp_path / "out")
    monkeypatch.setattr(MethodSpec, "build", lambda *_, **__: pytest.fail("loaded"))
    again = cli(*command)
    assert again.code == 1 and "torn.png" in again.err
    assert f"note: the run in {tmp_path / 'out'} is complete; --fresh makes it anew\n" in again.err
    assert "11 instances in 8 images; made before, in " in again.out and "loading" not in again.err
    assert finals(tmp_path / "out") == before
    assert [entry["id"] for entry in read(tmp_path / "out" / "quarantine.json")] == ["torn.png"]


def test_other_settings_are_refused_and_fresh_starts_anew(cli: Cli, fakes: None, photos: Path, tmp_path: Path) -> None:
    command = ("segment", photos, "--classes", ALL, "--out", tmp_path / "out", "--quiet")
    assert cli(*command).code == 0
    for change, words in (
        (["--variant", "paper"], "variant was 'default', now it is 'paper'"),
        (["--min-score", "0.9"], "min_score was 0.0, now it is 0.9"),
        (["--limit", "3"], "of the images number 4, 3.png is gone"),
        (["--task", "instance,semantic"], "tasks was ['instance']"),
        (["--precision", "bfloat16"], "precision was 'float32', now it is 'bfloat16'"),
        (["--precision", "bfloat"], "unknown precision 'bfloat'; did you mean 'bfloat16' or"),
        (["--overlaps", "within=0.5"], "overlaps was None, now it is {'within': 0.5,"),
    ):
        said = cli(*command, *change)
        assert said.code == 2 and words in said.err and said.err.count("\n") == 1
        assert ("--fresh" in said.err) == ("unknown" not in words)
    assert cli(*command, "--variant", "paper", "--fresh").code == 0
    run = read(tmp_path / "out" / "run.json")
    assert run["settings"]["variant"] == "paper" and run["command"][1] == "segment"


def test_ctrl_c_and_then_the_same_command(cli: Cli, fakes: None, photos: Path, tmp_path: Path, monkeypatch: Any) -> None:
    command = ("segment", photos, "--classes", ALL, "--batch-size", 2, "--out")
    assert cli(*command, tmp_path / "whole").code == 0
    instances = Zip.instances

    def interrupted(self: Zip, image: Any, classes: Any) -> Any:
        if image.size == draw_paper_scenes()[5].image.size:
            raise KeyboardInterrupt
        return instances(self, image, classes)

    with monkeypatch.context() as patch:
        patch.setattr(Zip, "instances", interrupted)
        said = cli(*command, tmp_path / "out")
        assert said.code == 130 and said.err.endswith(
            "annofree: interrupted; finished work is saved, run the same command to resume\n"
        )
    assert cli(*command, tmp_path / "out").code == 0
    assert finals(tmp_path / "out") == finals(tmp_path / "whole")


# Images


def test_patterns_urls_and_lists(cli: Cli, fakes: None, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("photos/1.png\nphotos/2.png\n", encoding="utf-8")
    given = [f"{photos}/[01].png", tmp_path / "list.txt", (photos / "3.png").as_uri()]
    assert cli("segment", *given, "--classes", ALL, "--out", tmp_path / "out").code == 0
    names = [row["file_name"] for row in read(tmp_path / "out" / "annotations.json")["images"]]
    assert names == ["0.png", "1.png", "2.png", "3.png"]


def test_hostile_pictures_are_labelled_or_named(cli: Cli, fakes: None, tmp_path: Path, monkeypatch: Any) -> None:
    spec = importlib.util.spec_from_file_location("hostile", SOURCE)
    assert spec and spec.loader
    hostile = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "hostile", hostile)
    spec.loader.exec_module(hostile)
    expected = hostile.make(tmp_path / "in", 30)
    out = tmp_path / "out"
    said = cli(
        "segment",
        tmp_path / "in",
        "--classes",
        "apple",
        "--task",
        "instance,semantic",
        "--method",
        "zip+maskclip",
        "--out",
        out,
    )
    assert said.code == 1
    labeled = {row["file_name"] for row in read(out / "annotations.json")["images"]}
    quarantine = {entry["id"]: entry["reason"] for entry in read(out / "quarantine.json")}
    assert labeled == {id_ for id_, good in expected.items() if good}
    assert quarantine.keys() == {id_ for id_, good in expected.items() if not good}
    failed = [line for line in said.err.splitlines() if line.startswith("failed: ")]
    assert [line.removeprefix("failed: ") for line in failed] == list(quarantine.values())
    for id_, reason in quarantine.items():
        assert id_.replace("\n", "\\n") in reason and "\n" not in reason and reason.startswith("expected a")
    rows = read(out / "annotations.json")["images"]
    assert all((out / row[key]).is_file() for row in rows for key in ("overlay", "labels"))
    (loop,) = (reason for id_, reason in quarantine.items() if id_ == "0/loop.png")
    assert "symbolic links" in loop


# Parts


def test_parts_and_merge(cli: Cli, fakes: None, photos: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (photos / "torn.png").write_bytes(b"torn")
    monkeypatch.setattr("annofree.runs.config.STRETCH", 2)
    asked = ("segment", photos, "--classes", ALL, "--task", "instance,semantic,panoptic", "--method", "zip+maskclip")
    command = (*asked, "--stuff", "tree", "--batch-size", 2, "--quiet", "--out")
    assert cli(*command, tmp_path / "whole").code == 1
    for i in (1, 2):
        cli(*command, tmp_path / f"{i}", "--shard", f"{i}/2")
    said = ask("merge", tmp_path / "1", tmp_path / "2", "--out", tmp_path / "joined")
    assert said.code == 1 and "11 instances in 8 images; joined in " in said.out
    assert finals(tmp_path / "joined") == finals(tmp_path / "whole")
    assert set(read(tmp_path / "1" / "labels" / "shares.json")["pictures"]) == {"0", "1", "4", "5"}
    assert ask("merge", tmp_path / "1", "--out", tmp_path / "x").err.startswith("expected all parts of the run")
    assert cli(*command, tmp_path / "x", "--shard", "2").err.startswith("annofree: expected --shard as a part of all")
    assert cli(*command, tmp_path / "x", "--shard", "3/2").code == 2


# Other names


@pytest.mark.parametrize(
    ("method", "task"), [("zip", "instance"), ("maskclip", "instance,semantic,panoptic"), ("zutis", "semantic")]
)
def test_other_names_for_what_was_kept(
    cli: Cli, fakes: None, photos: Path, tmp_path: Path, monkeypatch: Any, method: str, task: str
) -> None:
    (photos / "torn.png").write_bytes(b"torn")
    command = ("segment", photos, "--method", method, "--task", task)
    assert cli(*command, "--classes", "car, umbrella", "--keep-encodings", "--out", tmp_path / "kept").code == 1
    names = f"{ALL}, thing: apple"
    assert cli(*command, "--classes", names, "--min-score", 0.2, "--no-overlays", "--out", tmp_path / "new").code == 1
    again = ("relabel", tmp_path / "kept", "--classes", names, "--min-score", 0.2)
    with monkeypatch.context() as patch:
        for kind in (Zip, MaskClip, Zutis):
            patch.setattr(kind, "encode", never(kind.encode))
        said = ask(*again, "--out", tmp_path / "again")
        assert said.code == 1, said
        assert ask(*again, "--overlays", "--out", tmp_path / "drawn").code == 1
    assert list((tmp_path / "drawn").glob("overlays*/*.jpg"))
    new, old = finals(tmp_path / "new"), finals(tmp_path / "again")
    assert new.keys() == old.keys()
    assert_alike(tmp_path / "new", tmp_path / "again")
    run = read(tmp_path / "again" / "run.json")
    assert run["settings"]["relabelled"] == str(tmp_path / "kept") and run["settings"]["classes"][-1] == ["thing", "apple"]


def never(encode: Any) -> Any:
    @wraps(encode)
    def refused(self: Any, images: Any) -> Any:
        pytest.fail("encoded")

    return refused


def assert_alike(a: Path, b: Path) -> None:
    """The same up to fp16."""
    for path in a.rglob("*.png"):
        assert_same_pixels(ids_in(b / path.relative_to(a)), ids_in(path))
    if (a / "annotations.json").exists():
        new, old = read(a / "annotations.json"), read(b / "annotations.json")
        assert new["images"] == old["images"] and len(new["annotations"]) > 5
        assert_same_rows(old["annotations"], new["annotations"], dtype=torch.float16, depth="operation")


def ids_in(path: Path) -> np.ndarray[Any, Any]:
    """The ids in a label map's or a panoptic map's PNG, (H, W)."""
    with PIL.Image.open(path) as image:
        values = np.asarray(image)
    return values if values.ndim == 2 else decode_segment_ids(values)


def test_what_cannot_be_asked_again(cli: Cli, fakes: None, photos: Path, tmp_path: Path, monkeypatch: Any) -> None:
    kept, plain = tmp_path / "kept", tmp_path / "plain"
    command = ("segment", photos, "--classes", "car", "--quiet", "--limit", 2, "--out")
    assert cli(*command, kept, "--keep-encodings").code == cli(*command, plain).code == 0
    assert "kept no encodings" in ask("relabel", plain, "--classes", "dog", "--out", tmp_path / "o").err
    assert "is not a run folder" in ask("relabel", tmp_path, "--classes", "dog", "--out", tmp_path / "o").err
    assert "another folder to write to" in ask("relabel", kept, "--classes", "dog", "--out", kept).err
    assert cli(*command, tmp_path / "o", "--task", "semantic", "--objectness", "instances", "--keep-encodings").code == 2
    monkeypatch.setattr(FakeClip, "provenance", {"name": "another", "tier": "S0"})
    assert "are others: they were made by" in ask("relabel", kept, "--classes", "dog", "--out", tmp_path / "o").err
    assert not (tmp_path / "o").exists()


# Names


@pytest.mark.parametrize("method", ["zip", "sam_clip", "clip_diy", "maskclip", "clip_surgery", "patch_cosine", "zutis"])
def test_names_are_those_given_and_no_others(method: str) -> None:
    models = Models("tiny", "cpu", objectness="none").with_parts(**FAKE_PARTS, objectness=FakeObjectness())
    made, words = build_method(method, models), Vocabulary.of("zeppelin, car: auto | apple")
    for scene in draw_paper_scenes():
        if hasattr(made, "instances"):
            assert set(made.instances(scene.image, words).labels) <= {"zeppelin", "car"}
        if hasattr(made, "semantic"):
            assert set(made.semantic(scene.image, words).compute_shares()) <= {"background", "zeppelin", "car"}


def test_synonyms_are_one_class(cli: Cli, fakes: None, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli("segment", photos, "--classes", "fruit: apple, car", "--method", "maskclip", "--out", out).code == 0
    coco = read(out / "annotations.json")
    assert [row["name"] for row in coco["categories"]] == ["fruit", "car"]
    assert coco["annotations"]


def test_negatives_compete_and_are_never_told(cli: Cli, photos: Path, tmp_path: Path, monkeypatch: Any) -> None:
    for name, part in FAKE_PARTS.items():
        monkeypatch.setattr(Models, name, part)
    monkeypatch.setattr(Models, "fetch", lambda self, roles: None)
    others = ", ".join(name for name in NAMES if name != "apple")
    command = ("segment", photos, "--classes", "apple", "--models", "tiny", "--device", "cpu", "--task", "instance,semantic")
    for method in ("maskclip", "zutis"):
        out = tmp_path / method
        assert cli(*command, "--method", method, "--policy", "all", "--negatives", others, "--out", out).code == 0
        coco, truth = read(out / "annotations.json"), [s for s in draw_paper_scenes() if "apple" in s.names]
        assert {row["id"] for row in coco["categories"]} == {row["category_id"] for row in coco["annotations"]} == {1}
        assert len({row["image_id"] for row in coco["annotations"]}) == len(truth)
        assert read(out / "labels" / "classes.json")["names"] == ["background", "apple"]
        assert read(out / "run.json")["settings"]["negatives"] == others.split(", ")
    for wrong, words in (
        (
            ["--negatives", "wall", "--method", "maskclip", "--variant", "official", "--policy", "all"],
            "and maskclip takes none, or tells the back",
        ),
        (["--negatives", "Apple", "--method", "maskclip"], "expected negatives apart from the classes, got 'Apple'"),
        (["--negatives", "wall,,", "--method", "maskclip"], "a name is empty among the negatives"),
    ):
        said = cli("segment", photos, "--classes", "apple", "--models", "tiny", "--out", tmp_path / "no", *wrong)
        assert said.code == 2 and words in said.err
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("method", ["zip", "sam_clip"])
def test_negatives_of_methods_that_draw_things(
    method: str, cli: Cli, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for apples alone, a word that CLIP knows for the same colour takes them away; others take nothing."""
    for name, part in FAKE_PARTS.items():
        monkeypatch.setattr(Models, name, part)
    monkeypatch.setattr(Models, "fetch", lambda self, roles: None)
    command = ("segment", photos, "--classes", "apple, car", "--method", method, "--models", "tiny", "--device", "cpu", "--out")
    assert cli(*command, tmp_path / "plain").code == 0
    assert cli(*command, tmp_path / "others", "--negatives", ", ".join({*NAMES} - {"apple", "car"})).code == 0
    plain, others = (read(tmp_path / out / "annotations.json") for out in ("plain", "others"))
    real = sum(s.names.count("apple") + s.names.count("car") for s in draw_paper_scenes())
    assert len(others["annotations"]) == real and len(plain["annotations"]) >= real
    assert [row["name"] for row in others["categories"]] == ["apple", "car"]
    assert read(tmp_path / "others" / "run.json")["provenance"]["settings"]["negatives"]


def test_overlaps_are_settled_as_asked(cli: Cli, fakes: None, photos: Path, tmp_path: Path) -> None:
    command = (
        "segment",
        photos,
        "--classes",
        ALL,
        "--method",
        "sam_clip",
        "--quiet",
        "--keep-encodings",
        "--limit",
        2,
        "--out",
    )
    assert cli(*command, tmp_path / "all", "--variant", "paper").code == 0
    assert cli(*command, tmp_path / "one", "--variant", "paper", "--overlaps", "within=0.9").code == 0
    every, one = (read(tmp_path / out / "annotations.json")["annotations"] for out in ("all", "one"))
    assert 0 < len(one) < len(every)
    assert ask("relabel", tmp_path / "all", "--classes", ALL, "--overlaps", "within=0.9", "--out", tmp_path / "o").code == 0
    again = read(tmp_path / "o" / "annotations.json")["annotations"]
    assert_same_rows(again, one, dtype=torch.float16, depth="operation")
    assert read(tmp_path / "o" / "run.json")["settings"]["overlaps"]["within"] == 0.9


def test_presence_is_set_against_the_folder(cli: Cli, fakes: None, photos: Path, tmp_path: Path) -> None:
    few = ("segment", photos, "--classes", ALL, "--quiet", "--keep-encodings", "--out")
    assert cli(*few, tmp_path / "few").code == 0
    again = ("--classes", ALL, "--presence", "folder", "--out")
    assert "20 images or more" in ask("relabel", tmp_path / "few", *again, tmp_path / "no").err
    assert "unknown way to tell presence" in ask("relabel", tmp_path / "few", *again, tmp_path / "no", "--presence", "x").err
    for k, path in enumerate([path for path in sorted(photos.iterdir()) for _ in range(2)]):
        (photos / f"again-{k}.png").write_bytes(path.read_bytes())
    assert cli(*few, tmp_path / "many").code == 0
    assert ask("relabel", tmp_path / "many", *again, tmp_path / "folder").code == 0
    run, kept = read(tmp_path / "folder" / "run.json"), read(tmp_path / "many" / "annotations.json")["annotations"]
    assert set(run["provenance"]["presence_levels"]) == set(NAMES) and run["settings"]["presence"] == "folder"
    found = read(tmp_path / "folder" / "annotations.json")["annotations"]
    # the masks to the pixel, for the fakes draw whole regions of a colour; the scores are of other presences
    masks = [sorted((row["image_id"], row["segmentation"]["counts"]) for row in rows) for rows in (found, kept)]
    assert masks[0] == masks[1] and masks[0]
