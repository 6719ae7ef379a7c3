"""Images in object storage, which a storage in memory stands for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import PIL.Image
import pytest

import annofree
from annofree.errors import ImageError, InputError, MissingError
from annofree.io.files.remote import RemoteSource, find_url, read_url
from annofree.io.image_sources import read_place
from annofree.runs.inputs import find_source, open_inputs

ORANGES = Path(__file__).parents[2] / "examples" / "scenes" / "oranges.jpg"


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[str]:
    """An address with an image in a folder, one beside it, a tar, and a text."""
    system = fsspec.filesystem("memory")
    small = tmp_path / "small.png"
    PIL.Image.new("RGB", (12, 8), "red").save(small)
    for name, data in {
        "b/photo.png": small.read_bytes(),
        "a.png": small.read_bytes(),
        "shard.tar": b"",
        "notes.txt": b"notes",
    }.items():
        system.pipe_file(f"/bucket/{name}", data)
    yield "memory://bucket"
    system.rm("/bucket", recursive=True)


def test_a_folder_is_listed_at_every_depth_and_what_is_passed_over_is_told(storage: str) -> None:
    inputs = open_inputs(storage)
    assert list(inputs.ids) == ["a.png", "b/photo.png"]
    assert inputs.place("a.png") == "memory:/bucket/a.png"
    assert inputs.read(inputs.place("b/photo.png")).size == (8, 12)
    assert inputs.remarks == ["passed over 1 file (a tar in object storage; copy it here first): /bucket/shard.tar"]


@pytest.mark.parametrize(
    ("given", "ids"), [(["memory://bucket/b/photo.png"], ["photo.png"]), (["memory://bucket/*.png"], ["a.png"])]
)
def test_single_images_and_patterns(storage: str, given: list[str], ids: list[str]) -> None:
    assert list(find_source(given).list_ids()) == ids


def test_a_run_of_images_there_is_that_of_images_here(storage: str, tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/bucket/photos/oranges.jpg", ORANGES.read_bytes())
    here = annofree.segment(str(ORANGES), "orange", models="tiny", method="sam_clip", device="cpu", out=tmp_path / "here")
    asked: Any = {"models": "tiny", "method": "sam_clip", "device": "cpu"}
    there = annofree.segment(f"{storage}/photos", "orange", out=tmp_path / "there", **asked)
    assert there.summary["instances"] == here.summary["instances"] > 0
    for name in ("annotations.json", "overlays/oranges.jpg"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    again = annofree.segment(f"{storage}/photos", "orange", out=tmp_path / "there", **asked)
    assert again.was_complete


def test_an_index_of_images_there(storage: str, tmp_path: Path) -> None:
    made = annofree.build_index(storage, tmp_path / "index", models="tiny", device="cpu")
    assert made.manifest["rows"] == 2
    assert made.manifest["root"] == "memory:/bucket"


def test_what_cannot_be_read_is_named(storage: str) -> None:
    with pytest.raises(ImageError, match=r"memory://bucket/none\.png, but it cannot be read \(FileNotFoundError\)"):
        read_url("memory://bucket/none.png")
    with pytest.raises(ImageError, match=r"memory://bucket/notes\.txt holds something else"):
        read_place("memory:/bucket/notes.txt")
    with pytest.raises(InputError, match="found none; check the address"):
        open_inputs("memory://nowhere")


@pytest.mark.parametrize(
    ("given", "kind", "match"),
    [
        (["memory://bucket", "photos"], InputError, "got both"),
        (["memory://bucket", "s3://bucket"], InputError, "one storage, got memory and s3"),
        (["nonesuch://bucket"], InputError, "a storage that fsspec knows"),
        (["s3://bucket"], MissingError, "pip install s3fs"),
    ],
)
def test_what_does_not_fit_is_refused(given: list[str], kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        list(find_source(given).list_ids())


@pytest.mark.parametrize("given", ["s3://me:hunter2@bucket/photos", "s3://bucket/photos?X-Amz-Signature=hunter2"])
def test_no_password_is_taken_or_printed(given: str) -> None:
    with pytest.raises(InputError, match="without a password or signature") as refused:
        RemoteSource([given])
    assert "hunter2" not in str(refused.value)


def test_results_are_written_here(storage: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected --out on this machine"):
        annofree.segment(storage, "orange", models="tiny", out="memory://bucket/out")
    with pytest.raises(InputError, match="expected --out on this machine"):
        annofree.build_index(storage, "memory://bucket/out", models="tiny")


def test_pages_and_files_are_no_storage() -> None:
    assert [find_url(one) for one in ("https://example.org/a.jpg", "file:///a.jpg", "C:/a.jpg", "a.jpg")] == [None] * 4
    with pytest.raises(InputError, match="download them first"):
        find_source(["https://example.org/a.jpg"])
