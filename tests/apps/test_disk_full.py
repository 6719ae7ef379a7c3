"""Where files cannot grow, commands end with one line that names the file and says what to do, and go on once they can."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.support import detector_training, zutis_training
from tests.support.cli import Cli, Said

import annofree.methods.load_clip
import annofree.pipelines.mask_archive
from annofree.hub.cards import Card, hash_file
from annofree.io.atomic import name_errors, write_atomic
from annofree.testing.fakes import FakeClip, FakeObjectness


@contextmanager
def limit_files(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond some bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def assert_told(said: Said, place: Path) -> None:
    """Expect one line that names the file, and a remedy."""
    last = said.err.strip().splitlines()[-1]
    assert said.code == 2 and "Traceback" not in said.err, said.err
    assert last.startswith("annofree: ") and str(place) in last and "File too large" in last, last
    assert "same command again" in last or "ANNOFREE_HOME" in last


def test_a_detector_is_not_trained_where_there_is_no_room(cli: Cli, tmp_path: Path) -> None:
    detector_training.write_labels(tmp_path)
    (tmp_path / "recipe.toml").write_text(detector_training.TOML)
    asked = ("train", "detector", "--config", tmp_path / "recipe.toml", "--out", tmp_path / "out", "--steps", 2)
    with limit_files(100_000):
        assert_told(cli(*asked), tmp_path / "out" / "checkpoint.pt")
    assert cli(*asked).code == 0
    given = ("--labels", tmp_path / "labels.json", "--images", tmp_path / "pictures", "--out", tmp_path / "tuned")
    tuned = ("finetune", tmp_path / "out", *given, "--steps", 1, "--batch", 2)
    with limit_files(0):
        assert_told(cli(*tuned), tmp_path / "tuned" / "log.jsonl")


def test_zutis_is_not_trained_where_there_is_no_room(cli: Cli, tmp_path: Path) -> None:
    zutis_training.write_clip(tmp_path / "clip")
    zutis_training.write_archive(tmp_path / "archive")
    (tmp_path / "recipe.toml").write_text(zutis_training.TOML)
    asked = ("train", "zutis", "--config", tmp_path / "recipe.toml", "--out", tmp_path / "out", "--steps", "1")
    with limit_files(20_000):
        assert_told(cli(*asked), tmp_path / "out" / "checkpoint.pt")
    assert cli(*asked).code == 0


def test_nothing_is_masked_or_indexed_where_there_is_no_room(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annofree.methods.load_clip, "load_clip", lambda spec, device, use: FakeClip())
    monkeypatch.setattr(annofree.pipelines.mask_archive, "_source", lambda *asked: FakeObjectness())
    zutis_training.write_archive(tmp_path / "archive")
    photos = tmp_path / "photos"
    photos.mkdir()
    for image in (tmp_path / "archive").glob("*.png"):
        shutil.copy(image, photos)
    for left in ("masks.jsonl", "masks-about.json"):
        (tmp_path / "archive" / left).unlink()
    asked = ("mask", tmp_path / "archive", "--by", "found", "--models", "tiny")
    for size, name in ((0, "masks-about.json"), (200, "masks.jsonl"), (1600, "sheets/masks-")):
        with limit_files(size):
            said = cli(*asked)
        assert_told(said, tmp_path / "archive" / name)
    assert cli(*asked).code == 0
    for size, name in ((0, "manifest.json"), (300, "checksums-00000.json")):
        with limit_files(size):
            said = cli("index", photos, "--models", "tiny", "--out", tmp_path / "index")
        assert said.code == 2 and str(tmp_path / "index") in said.err and "File too large" in said.err, (name, said.err)
    assert cli("index", photos, "--models", "tiny", "--out", tmp_path / "index").code == 0


def test_no_model_is_added_where_there_is_no_room(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANNOFREE_HOME", str(tmp_path / "home"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"0" * 5000)
    files = {"model.safetensors": hash_file(tmp_path / "model" / "model.safetensors")}
    Card("own", "detector", "S0", "Apache-2.0", "nothing", "emoji", files).write(tmp_path / "model")
    with limit_files(1000):
        assert_told(cli("models", "add", "--from", tmp_path / "model"), tmp_path / "home" / "models")
    assert not any((tmp_path / "home" / "models").iterdir())
    assert cli("models", "add", "--from", tmp_path / "model").code == 0


@pytest.mark.parametrize("kind", ["safetensors", "torch", "text", "log"])
def test_every_library_that_cannot_write_names_the_file(tmp_path: Path, kind: str) -> None:
    state, path = {"a": torch.zeros(9000)}, tmp_path / "file"

    def write(place: Path) -> None:
        if kind == "safetensors":
            save_file(state, place)
        elif kind == "torch":
            with place.open("wb") as file:
                torch.save(state, file)
        else:
            place.write_text("a" * 9000)

    with limit_files(2000), pytest.raises(OSError, match="File too large") as found:
        if kind == "log":
            with name_errors(path), path.open("a") as log:
                log.write("a" * 9000)
        else:
            write_atomic(path, write)
    assert found.value.filename == str(path)
    assert [p.name for p in tmp_path.iterdir()] in ([], ["file"] if kind == "log" else [])
