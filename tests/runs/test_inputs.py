"""What people name: folders, patterns, lists, tars, files and file:// URLs."""

from __future__ import annotations

import tarfile
from pathlib import Path

import PIL.Image
import pytest

from annofree.errors import InputError
from annofree.runs.inputs import find_source


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "my photos"
    for name in ("a.png", "b.JPG", "sub/c.png", "sub/deep/d.webp", "[x].png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (4, 4)).save(folder / name)
    (folder / "notes.txt").write_text("nothing.png\n", encoding="utf-8")
    (folder / "list.lst").touch()
    return folder


ALL = ["[x].png", "a.png", "b.JPG", "sub/c.png", "sub/deep/d.webp"]


def ids(*inputs: str | Path, exclude: Path | None = None) -> list[str]:
    return list(find_source(inputs, exclude).list_ids())


def test_folders_patterns_and_urls(photos: Path) -> None:
    assert ids(photos) == ids(photos.as_uri()) == ids(f"file://localhost{photos.as_uri()[7:]}") == ALL
    assert ids(f"{photos}/*.png") == ["[x].png", "a.png"] or ids(f"{photos}/*.png") == ["a.png", "[x].png"]
    assert sorted(ids(f"{photos}/**")) == ALL
    assert ids(f"{photos}/s*") == ["c.png", "deep/d.webp"]
    assert ids(photos / "[x].png") == ["[x].png"]  # a file first, then a pattern
    assert ids(f"{photos}/?.png", photos / "a.png") == ["a.png"]


def test_patterns_take_lists_only_where_they_say_so(photos: Path) -> None:
    assert "nothing.png" not in ids(f"{photos}/*")
    assert ids(f"{photos}/*.txt") == ["nothing.png"]


def test_tars_and_lists(photos: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.add(photos / "a.png", "x/a.png")
    (tmp_path / "list.txt").write_text(f"# mine\n\n{photos / 'a.png'}\nmy photos/b.JPG\n", encoding="utf-8")
    assert ids(tmp_path / "list.txt") == ["a.png", "b.JPG"]
    assert ids(tmp_path / "t.tar") == ids(f"{tmp_path}/*.tar") == ["t.tar::x/a.png"]


def test_results_are_no_pictures(photos: Path) -> None:
    assert ids(photos, exclude=photos / "sub") == ALL[:3]
    assert "sub/c.png" not in ids(f"{photos}/**", exclude=photos / "sub")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("https://a.org/b.jpg", "expected images on this machine, got https://a.org/b.jpg; download"),
        ("file://other/a.png", "expected images on this machine"),
        ("ftp://bucket/a.png", "expected images on this machine"),
        ("{}/none/*.png", "expected images, tars or folders that fit .*none.*found none"),
        ("{}/nowhere", "expected an image or a folder at .*nowhere"),
        ("{}/my photos/sub/empty", "expected images .* in the folder .*found none among 0 files"),
    ],
)
def test_what_is_not_there_is_named(photos: Path, tmp_path: Path, given: str, words: str) -> None:
    (photos / "sub" / "empty").mkdir()
    with pytest.raises(InputError, match=words):
        find_source([given.replace("{}", str(tmp_path))])
