"""Any byte of the state of a run, an index or an archive: with another one it is refused, or means the same."""

from __future__ import annotations

import json
import random
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from tests.support.indexing import Colors

from annofree.errors import InputError
from annofree.io.files.checksums import take_checksum
from annofree.io.image_checksums import is_image_unchanged, measure_image
from annofree.io.image_sources import Source
from annofree.retrieval.archive import Archive, MaskWriter, Member, PseudoMask, read_masks
from annofree.retrieval.build_index import build_index
from annofree.retrieval.index import read_manifest
from annofree.retrieval.open_index import open_index
from annofree.runs.merge_shards import merge_runs
from annofree.runs.store.chunks import Chunks
from annofree.runs.store.finals import require_intact


def flip(path: Path, most: int = 400) -> Iterator[int]:
    """Give a file another byte at one place after the other, and its own back at the end."""
    content, rng = path.read_bytes(), random.Random(0)
    places = range(len(content))
    for place in places if len(content) <= most else sorted({0, len(content) - 1, *rng.sample(places, most)}):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :])
        yield place
    path.write_bytes(content)


def assert_refused_or_same(path: Path, read: Callable[[], Any]) -> None:
    """Expect what is read to be what it was, or one line that refuses, wherever a bit is flipped."""
    expected, refused = read(), 0
    for place in flip(path):
        try:
            assert read() == expected, f"byte {place} of {path.name}"
        except InputError as problem:
            refused += 1
            assert len(str(problem).splitlines()) == 1
    assert refused and read() == expected


@pytest.mark.parametrize("name", ["settings.json", "inputs.txt", "manifest.jsonl", "00000.jsonl"])
def test_the_state_of_a_run(kills: Any, images: Path, tmp_path: Path, name: str) -> None:
    kills.one_run(images, tmp_path / "run", stretch=16)

    def read() -> Any:
        shards = Chunks(tmp_path / "run")
        held = list(shards.read_rows()) if len(shards.list_whole()) == 2 else None
        if held is None or not shards.complete:  # the shard, or the line of its end, is made again
            raise InputError("not whole")
        settings = {key: shards.read_settings().get(key) for key in ("asked", "stretch", "device", "provenance", "encoding")}
        return settings, shards.read_ids(), shards.environments, list(shards.read_seconds()), held

    assert_refused_or_same(tmp_path / "run" / "shards" / name, read)


@pytest.mark.parametrize("name", ["manifest.json", "ids-00000.json", "embeddings-00001.npy", "checksums-00000.json"])
def test_an_index(tmp_path: Path, name: str) -> None:
    for k in range(5):
        (tmp_path / "photos").mkdir(exist_ok=True)
        PIL.Image.new("RGB", (8, 8), (40 * k, 90, 10)).save(tmp_path / "photos" / f"{k}.png")
    build_index(Source([tmp_path / "photos"]), tmp_path / "index", Colors(), shard_size=3)

    def read() -> Any:
        index = open_index(tmp_path / "index")
        rows = np.arange(len(index))
        return index.root, index.model, len(index), index.read_ids(rows), index.read_vectors(rows).tolist()

    assert_refused_or_same(tmp_path / "index" / name, read)


def test_an_archive_and_its_masks(tmp_path: Path) -> None:
    Archive(("dog",), {"dog": (Member("a.png", 0.5), Member("b.png", 0.25))}, {"a.png": "a.png", "b.png": "b.png"}).write(
        tmp_path
    )
    assert_refused_or_same(tmp_path / "archive.json", lambda: Archive.read(tmp_path))
    with MaskWriter(tmp_path, {"model": "m"}) as writer:
        for name in ("a.png", "b.png"):
            writer.add(PseudoMask(name, {"size": [2, 3], "counts": "06"}, 0.5))
    expected, whole = read_masks(tmp_path), (tmp_path / "masks.jsonl").stat().st_size
    for place in flip(tmp_path / "masks.jsonl"):
        try:
            assert read_masks(tmp_path) == expected or place == whole - 1  # a line that is cut short is made again
        except InputError as problem:
            assert "masks.jsonl" in str(problem)


def test_what_earlier_versions_wrote_is_read(kills: Any, images: Path, tmp_path: Path) -> None:
    kills.one_run(images, tmp_path / "run", stretch=16)
    state = tmp_path / "run" / "shards"
    before = Chunks(tmp_path / "run").read_completion()
    lines = [take_checksum(json.loads(line)) for line in (state / "manifest.jsonl").read_text().splitlines()]
    (state / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = take_checksum(json.loads((state / "settings.json").read_text()))
    settings.pop("inputs")
    (state / "settings.json").write_text(json.dumps(settings))
    shards = Chunks(tmp_path / "run")
    assert shards.read_completion() == before and len(shards.read_ids()) == 21 and len(shards.list_whole()) == 2


def test_a_line_that_ends_otherwise_is_not_passed_over(kills: Any, images: Path, tmp_path: Path) -> None:
    kills.one_run(images, tmp_path / "run", stretch=16)
    path = tmp_path / "run" / "shards" / "manifest.jsonl"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r", 1))
    with pytest.raises(InputError, match="manifest"):
        Chunks(tmp_path / "run").list_whole()


def write_tar(path: Path, shade: int) -> None:
    """Write a tar of two images, the second one of some shade."""
    with tarfile.open(path, "w") as tar:
        for name, value in (("a.png", 10), ("b.png", shade)):
            PIL.Image.new("RGB", (8, 8), (value, 0, 0)).save(path.parent / name)
            tar.add(path.parent / name, name)
            (path.parent / name).unlink()


def test_an_image_in_a_tar_that_changed_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    tar = tmp_path / "photos" / "some.tar"
    write_tar(tar, 20)
    known = {name: measure_image(f"{tar}::{name}") for name in ("a.png", "b.png")}
    build_index(Source([tmp_path / "photos"]), tmp_path / "index", Colors())
    write_tar(tar, 20)  # touched, and the same
    assert all(is_image_unchanged(f"{tar}::{name}", value or []) for name, value in known.items())
    seen = Colors()
    build_index(Source([tmp_path / "photos"]), tmp_path / "index", seen)
    assert seen.seen == []
    write_tar(tar, 30)
    assert is_image_unchanged(f"{tar}::a.png", known["a.png"] or [])
    assert not is_image_unchanged(f"{tar}::b.png", known["b.png"] or [])
    assert not is_image_unchanged(f"{tar}::c.png", [1, 2])
    build_index(Source([tmp_path / "photos"]), tmp_path / "index", seen)
    assert len(seen.seen) == 2 and read_manifest(tmp_path / "index")["complete"]


def test_a_run_looks_at_a_tar_again_that_changed(kills: Any, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    write_tar(tmp_path / "photos" / "some.tar", 50)
    kills.one_run(tmp_path / "photos", tmp_path / "run")
    before = kills.digest(tmp_path / "run")
    write_tar(tmp_path / "photos" / "some.tar", 240)
    kills.one_run(tmp_path / "photos", tmp_path / "run")
    assert kills.digest(tmp_path / "run") != before
    kills.one_run(tmp_path / "photos", tmp_path / "anew")
    assert kills.digest(tmp_path / "run") == kills.digest(tmp_path / "anew")


def test_a_damaged_overlay_is_not_shown(kills: Any, images: Path, tmp_path: Path) -> None:
    kills.one_run(images, tmp_path / "run", overlays=True)
    path = next((tmp_path / "run" / "overlays").rglob("*.jpg"))
    place = path.relative_to(tmp_path / "run").as_posix()
    require_intact(tmp_path / "run", [place])
    for _ in flip(path, 3):
        with pytest.raises(InputError, match="as its run wrote it"):
            require_intact(tmp_path / "run", [place])
    path.unlink()
    require_intact(tmp_path / "run", [place])  # somebody made room


def test_damaged_names_of_a_part_are_not_joined(kills: Any, images: Path, tmp_path: Path) -> None:
    kills.one_run(images, tmp_path / "run")
    for _ in flip(tmp_path / "run" / "labels" / "classes.json", 5):
        with pytest.raises(InputError, match=r"classes\.json as its run wrote it"):
            merge_runs([tmp_path / "run"], tmp_path / "joined")
        assert not (tmp_path / "joined").exists()
