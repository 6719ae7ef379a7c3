"""Which files are images, and what is said of the others."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from annofree.errors import ImageError, InputError
from annofree.io.image_files import OtherFiles
from annofree.io.image_sources import Source, read_images, read_place
from annofree.io.images import find_images, read_image


def encode(kind: str) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (16, 12), (200, 30, 30)).save(file, kind)
    return file.getvalue()


def listed(folder: Path) -> tuple[list[str], str]:
    source = Source([folder])
    return list(source.list_ids()), "\n".join(source.others.format_lines())


KINDS = [
    ("a.jfif", "JPEG"),
    ("a.JPE", "JPEG"),
    ("a.avif", "AVIF"),
    ("a.jp2", "JPEG2000"),
    ("a.dib", "BMP"),
    ("jpeg", "JPEG"),
    ("photo.jpg_large", "JPEG"),
    ("hash", "PNG"),
    ("webp", "WEBP"),
    ("tiff", "TIFF"),
    ("bitmap", "BMP"),
    ("avif", "AVIF"),
    ("jp2", "JPEG2000"),
    ("gif.1", "GIF"),
]


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_what_pillow_reads_is_read_whatever_its_name(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(encode(kind))
    assert listed(tmp_path) == ([name], "")
    assert find_images([tmp_path]) == [tmp_path / name]
    pixels = read_image(tmp_path / name).pixels
    assert pixels.shape == (12, 16, 3) and np.abs(pixels.astype(int) - (200, 30, 30)).max() < 12


NAMED = [
    ("a.heic", b"", "HEIF cannot be read"),
    ("phone", b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "HEIF cannot be read"),
    ("a.CR2", b"II*\x00", ".cr2 is a kind that cannot be read"),
    ("a.svg", b"<svg/>", ".svg is a kind"),
    ("a.zip", b"PK", "an archive"),
    ("shard.tar.gz", b"\x1f\x8b", "an archive"),
]


@pytest.mark.parametrize(("name", "content", "why"), NAMED)
def test_what_cannot_be_read_is_counted_and_named(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / "b.png").write_bytes(encode("PNG"))
    (tmp_path / name).write_bytes(content)
    ids, said = listed(tmp_path)
    assert ids == ["b.png"]
    assert "passed over 1 file " in said and why in said and name in said


def test_texts_and_hidden_files_are_no_images_and_not_named(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(encode("PNG"))
    for name in ("notes.txt", "a.json", "LICENSE", ".hidden.heic", "BMW"):
        (tmp_path / name).write_bytes(b"BM is what it begins with")
    assert listed(tmp_path) == (["b.png"], "")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_no_images_and_nobody_waits_for_them(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(encode("PNG"))
    for name in ("pipe.png", "pipe.tar", "pipe"):
        os.mkfifo(tmp_path / name)
    ids, said = listed(tmp_path)
    assert ids == ["b.png"]
    assert "2 files (a pipe, a device or a socket)" in said
    with pytest.raises(ImageError, match="is a pipe"):
        read_image(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="is a pipe"):
        read_place(f"{tmp_path}/pipe.tar::a.png")
    (tmp_path / "list.txt").write_text("pipe.tar\n")
    with pytest.raises(InputError, match="is a pipe"):
        list(Source([tmp_path / "list.txt"]).list_ids())


def test_links_to_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "b.png").write_bytes(encode("PNG"))
    (tmp_path / "photos" / "again").symlink_to(tmp_path / "photos")
    ids, said = listed(tmp_path / "photos")
    assert ids == ["b.png"] and "a link to a folder" in said and "again" in said


def test_tars_of_any_letters_and_all_their_members(tmp_path: Path) -> None:
    members = {"a.jfif": encode("JPEG"), "b": encode("PNG"), "b.txt": b"a dog", "c.heic": b"x", "a.jfif ": b""}
    with tarfile.open(tmp_path / "S.TAR", "w") as tar:
        for name, data in (*members.items(), ("a.jfif", encode("JPEG"))):
            entry = tarfile.TarInfo(name.strip())
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "a.jfif"
        tar.addfile(link)
    ids, said = listed(tmp_path)
    assert ids == ["S.TAR::a.jfif", "S.TAR::b"]
    assert "2 files (a later member" in said and "c.heic" in said and "link.png" in said
    assert [type(image).__name__ for *_, image in read_images((i, str(tmp_path / i)) for i in ids)] == ["Image", "Image"]


def test_names_that_are_no_utf8_are_kept(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        with open(raw, "wb") as file:  # noqa: PTH123
            file.write(encode("PNG"))
    except OSError:
        pytest.skip("a file system of Unicode names")
    (name,), _ = listed(tmp_path)
    assert os.fsencode(name) == b"caf\xe9.png"
    assert read_place(str(tmp_path / name)).size == (12, 16)


def test_only_the_first_names_are_kept() -> None:
    others = OtherFiles()
    for k in range(50):
        others.add("odd", f"{k}.x")
    (line,) = others.format_lines()
    assert line.startswith("passed over 50 files (odd): 0.x, 1.x") and line.endswith("19.x and 30 more")
