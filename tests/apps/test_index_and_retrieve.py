"""``annofree index`` and ``annofree retrieve``: exit codes, what is said and what is left behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import typer
from typer.testing import CliRunner, Result

import annofree.methods.load_clip
from annofree.apps.cli.commands.index import index
from annofree.apps.cli.commands.retrieve import retrieve
from annofree.errors import InputError
from annofree.retrieval.archive import Archive
from annofree.testing.fakes import FakeClip
from annofree.testing.paper_world import BACKGROUND, COLORS, NAMES

Run = Callable[..., Result]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, dict[str, Any]]]:
    """Put the fake CLIP in the place of every one; what was asked for is recorded."""
    asked: list[tuple[str, str, dict[str, Any]]] = []

    def fake(spec: str, device: str, use: dict[str, Any]) -> FakeClip:
        asked.append((spec, device, use))
        return FakeClip()

    monkeypatch.setattr(annofree.methods.load_clip, "load_clip", fake)
    return asked


@pytest.fixture
def run() -> Run:
    app = typer.Typer()
    app.command()(index)
    app.command()(retrieve)
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four images of each class of the paper world, with ever less of it; the last has the next class, too."""
    folder = tmp_path / "photos"
    for number, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        for i in range(4):
            pixels = np.full((32, 48, 3), BACKGROUND, np.uint8)
            pixels[: 32 - 6 * i] = COLORS[name][0]
            if i == 3:
                pixels[16:] = COLORS[NAMES[(number + 1) % len(NAMES)]][0]
            PIL.Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def test_from_pictures_to_an_archive(run: Run, asked: list[Any], photos: Path, tmp_path: Path) -> None:
    said = run("index", photos, "--out", tmp_path / "index", "--models", "best", "--batch", 5, "--shard", 7, "--whole", "crop")
    assert said.exit_code == 0, said
    assert said.stdout.startswith("24 of 24 images, D = 64; ") and said.stdout.endswith(f"\nwritten: {tmp_path}/index\n")
    assert "images: 24 of 24 in " in said.stderr

    said = run("retrieve", tmp_path / "index", "--classes", "apple, car, background, yeti", "--k", 5, "--out", tmp_path / "a")
    assert said.exit_code == 0, said
    assert "images for 3 names, 5 a name or more" in said.stdout
    assert said.stderr.startswith("note: background is no thing and was left out\nnote: fake-clip has never read: yeti\n")
    assert asked == [("best", "auto", {"whole": "crop"}), ("best", "auto", {})]

    archive = Archive.read(tmp_path / "a")
    assert archive.names == ("apple", "car", "yeti")
    ids = [m.id for m in archive.members["apple"]]
    assert (ids[:3], set(ids[3:])) == (["apple/0.png", "apple/1.png", "apple/2.png"], {"apple/3.png", "boat/3.png"})
    assert archive.list_classes("apple/3.png")[:2] == ("apple", "car")
    assert archive.open("car/0.png").pixels[0, 0].tolist() == list(COLORS["car"][0])
    assert archive.about["k"] == 5 and archive.about["model"]["name"] == "fake-clip"
    assert sorted(p.name for p in (tmp_path / "a" / "sheets").iterdir()) == ["000-apple.jpg", "001-car.jpg", "002-yeti.jpg"]


def test_a_corrupt_picture_is_named_and_the_rest_goes_on(run: Run, asked: list[Any], photos: Path, tmp_path: Path) -> None:
    (photos / "car" / "1.png").write_bytes(b"no image")
    for _ in range(2):  # the second time there is nothing left to do
        said = run("index", photos, "--out", tmp_path / "index", "--json")
        assert said.exit_code == 1
        assert said.stderr.count("failed: ") == said.stderr.count("\n") == 1
        assert str(photos / "car" / "1.png") in said.stderr
        summary = json.loads(said.stdout)
        assert (summary["inputs"], summary["rows"], list(summary["failed"])) == (24, 23, ["car/1.png"])


def test_pictures_of_the_sheets_that_are_gone_are_named(run: Run, asked: list[Any], photos: Path, tmp_path: Path) -> None:
    run("index", photos, "--out", tmp_path / "index", "--quiet")
    photos.rename(tmp_path / "moved")
    arguments = ("retrieve", tmp_path / "index", "--classes", "apple", "--out", tmp_path / "a", "--json")
    said = run(*arguments)
    assert said.exit_code == 1
    assert said.stderr.count("failed: ") == 13
    assert "failed: 12 more; say where the images are with --images" in said.stderr
    assert run(*arguments, "--sheet", 0).exit_code == 0
    said = run(*arguments, "--images", tmp_path / "moved")
    assert (said.exit_code, said.stderr) == (0, "")
    assert json.loads(said.stdout)["found"] == {"apple": 24}
    assert Archive.read(tmp_path / "a").open("apple/0.png").size == (32, 48)


def test_copies_may_be_dropped(run: Run, asked: list[Any], photos: Path, tmp_path: Path) -> None:
    (photos / "zoo").mkdir()
    (photos / "zoo" / "copy.png").write_bytes((photos / "apple" / "1.png").read_bytes())
    run("index", photos, "--out", tmp_path / "index", "--quiet")
    arguments = ("retrieve", tmp_path / "index", "--classes", "apple", "--k", 3, "--out", tmp_path / "a")
    run(*arguments)
    assert "zoo/copy.png" in Archive.read(tmp_path / "a").ids
    said = run(*arguments, "--unique")
    assert "1 images of the index repeat earlier ones and were dropped" in said.stdout
    assert "zoo/copy.png" not in Archive.read(tmp_path / "a").ids


def test_wrong_calls_say_what_is_wrong(
    run: Run, asked: list[Any], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("index", photos, "--out", tmp_path / "index", "--quiet")
    arguments = ("retrieve", tmp_path / "index", "--out", tmp_path / "a")
    for more, said in (
        (("--classes", "background"), "names of things"),
        ((), "--classes"),
        (("--classes", "yeti", "--min-score", 0.5), "none for 'yeti'"),
    ):
        with pytest.raises(InputError, match=said):
            raise run(*arguments, *more).exception or AssertionError("not refused")
    assert not (tmp_path / "a").exists()

    class Other(FakeClip):
        @property
        def provenance(self) -> dict[str, Any]:
            return {"name": "other"}

    monkeypatch.setattr(annofree.methods.load_clip, "load_clip", lambda *_: Other())
    with pytest.raises(InputError, match="name was 'fake-clip', now it is 'other'"):
        raise run(*arguments, "--classes", "apple").exception or AssertionError("not refused")


def test_clip_retrieval_needs_to_know_the_model(run: Run, asked: list[Any], tmp_path: Path) -> None:
    (tmp_path / "cr" / "img_emb").mkdir(parents=True)
    np.save(tmp_path / "cr" / "img_emb" / "img_emb_0.npy", 3 * np.eye(64, dtype=np.float16))
    arguments = ("retrieve", tmp_path / "cr", "--classes", "apple, car", "--k", 1, "--out", tmp_path / "a", "--sheet", 0)
    with pytest.raises(InputError, match="name it with --models"):
        raise run(*arguments).exception or AssertionError("not refused")
    said = run(*arguments, "--models", "openai-vit-b-16")
    assert said.exit_code == 0, said
    assert [m.id for m in Archive.read(tmp_path / "a").members["car"]] == ["1"]
