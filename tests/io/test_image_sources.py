import io
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from annofree.errors import ImageError, InputError
from annofree.io import image_sources as sources
from annofree.io.image_sources import Source, read_images, read_place
from annofree.io.images import decode_bytes, decode_image, silence_pillow
from annofree.structures import Image


def png(value: int, size: tuple[int, int] = (4, 3)) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", size, (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(value))
    return path


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def read_all(source: Source, **settings: Any) -> list[tuple[str, Image | ImageError]]:
    entries = ((name, str(source.root / name)) for name in source.list_ids())
    with silence_pillow():
        return [(name, image) for name, _, image in read_images(entries, **settings)]


def test_a_folder_at_every_depth_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b.png", "a/2.JPG", "a/1.jpeg", "a/x/3.webp", ".hidden/4.png", ".5.png", "out/6.png"):
        write(tmp_path / name)
    (tmp_path / "notes.md").write_text("no image")
    source = Source([tmp_path], exclude=tmp_path / "out")
    assert list(source.list_ids()) == ["b.png", "a/1.jpeg", "a/2.JPG", "a/x/3.webp"]
    assert source.root == tmp_path.resolve()


def test_a_list_counts_from_its_own_folder(tmp_path: Path) -> None:
    far = write(tmp_path / "far" / "3.png")
    for name in ("photos/1.png", "photos/2.png"):
        write(tmp_path / name)
    listed = tmp_path / "photos" / "list.txt"
    listed.write_text(f"2.png\n\n# a remark\r\n1.png\r\n{far}\n2.png\nmissing.png\n../far/3.png\n")
    source = Source([listed])
    assert list(source.list_ids()) == ["photos/2.png", "photos/1.png", "far/3.png", "photos/missing.png"]
    assert [type(image) for _, image in read_all(source)] == [Image, Image, Image, ImageError]


def test_tars_member_by_member(tmp_path: Path) -> None:
    write_tar(tmp_path / "00.tar", {"x/1.jpg": png(1), "x/1.txt": b"a dog", "2.png": png(2)})
    write_tar(tmp_path / "01.tar", {"2.png": png(3), ".3.png": png(4)})
    write(tmp_path / "z.png", 5)
    for source in (Source([tmp_path]), Source([tmp_path / "00.tar", tmp_path / "01.tar", tmp_path / "z.png"])):
        read = read_all(source)
        assert [name for name, _ in read] == ["00.tar::x/1.jpg", "00.tar::2.png", "01.tar::2.png", "z.png"]
        assert [p.pixels[0, 0, 0] for _, p in read if isinstance(p, Image)] == [1, 2, 3, 5]
        assert [p.id for _, p in read if isinstance(p, Image)] == [name for name, _ in read]


def test_what_is_given_twice_counts_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a" / "1.png")
    assert list(Source([tmp_path, path, path.parent]).list_ids()) == ["a/1.png"]


def test_a_tar_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "0.tar", {"1.png": png(1)})
    os.utime(tar, ns=(1, 1))
    assert read_place(f"{tar}::1.png").pixels[0, 0, 0] == 1
    write_tar(tar, {"longer-name.png": png(9, (50, 40)), "1.png": png(7)})  # of the same size, for tars come in blocks
    os.utime(tar, ns=(2, 2))
    assert read_place(f"{tar}::1.png").pixels[0, 0, 0] == 7


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tar: tar.unlink(), "No such file"),
        (lambda tar: tar.write_bytes(b"no tar at all" * 100), "tar"),
        (lambda tar: write_tar(tar, {"2.png": png(0)}), "no such member"),
        (lambda tar: write_tar(tar, {"1.png": b""}), "empty"),
        (lambda tar: write_tar(tar, {"1.png": b"no image"}), "something else"),
        (lambda tar: write_tar(tar, {"1.png": png(0, (90, 80))[:-40]}), "cut short"),
    ],
)
def test_a_picture_in_a_tar_that_cannot_be_read_is_named(tmp_path: Path, change: Callable[[Path], object], said: str) -> None:
    tar = write_tar(tmp_path / "0.tar", {"1.png": png(1)})
    change(tar)
    with pytest.raises(ImageError, match=said) as refusal:
        read_place(f"{tar}::1.png")
    assert "0.tar" in str(refusal.value)


def test_bytes_are_read_as_files_are(tmp_path: Path) -> None:
    scene = PIL.Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3), "RGB").convert("RGBA")
    scene.putalpha(100)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    scene.crop((0, 0, 4, 2)).save(tmp_path / "turned.png", exif=exif)
    by_path = decode_image(tmp_path / "turned.png")
    by_bytes = decode_bytes((tmp_path / "turned.png").read_bytes(), "here", "id")
    assert by_path.size == (4, 2)
    assert np.array_equal(by_path.pixels, by_bytes.pixels)
    assert by_bytes.id == "id"


def test_pictures_come_in_order_and_no_more_than_asked_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    taken: list[int] = []

    def read(place: str, id: str) -> Image:  # noqa: A002
        asked.append(id)
        return Image(np.zeros((1, 1, 3), np.uint8), id)

    monkeypatch.setattr(sources, "read_place", read)
    for number, (name, _, _) in enumerate(read_images(((str(n), "") for n in range(40)), threads=3, ahead=5)):
        assert name == str(number)
        taken.append(len(asked) - number)
    assert number == 39
    assert max(taken) <= 5


def test_stopping_early_leaves_no_thread_behind(tmp_path: Path) -> None:
    write(tmp_path / "1.png")
    place = str(tmp_path / "1.png")
    images = read_images((("1", place) for _ in range(1000)), threads=2, ahead=10)
    assert isinstance(next(images)[2], Image)
    images.close()  # type: ignore[attr-defined]


def test_inputs_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got none"):
        Source([])
    with pytest.raises(InputError, match="not there"):
        Source([tmp_path / "nowhere"])
    broken = tmp_path / "broken.tar"
    broken.write_bytes(b"x" * 2000)
    with pytest.raises(InputError, match=r"uncompressed tar at .*broken\.tar"):
        list(Source([broken]).list_ids())


@pytest.mark.parametrize(
    ("spoil", "why", "left"),
    [
        (lambda data, end: data[:end], "no end mark", 1),
        (lambda data, end: data[:end] + b"\1" + data[end + 1 :], "damaged there", 1),
        (lambda data, end: data + data, "a second one", 2),
        (lambda data, end: data, None, 2),
        (lambda data, end: data[: 2 * end + 1024], None, 2),
    ],
)
def test_what_follows_the_members_of_a_tar_is_named(
    spoil: Callable[[bytes, int], bytes], why: str | None, left: int, tmp_path: Path
) -> None:
    tar = write_tar(tmp_path / "a.tar", {"1.png": png(1), "2.png": png(2)})
    tar.write_bytes(spoil(tar.read_bytes(), 1024))
    source = Source([tar])
    assert len(list(source.list_ids())) == left
    lines = source.others.format_lines()
    assert (why is None and lines == []) or (len(lines) == 1 and str(why) in lines[0] and "a.tar::byte" in lines[0])


@pytest.mark.parametrize("entry", ["\0", "a\0.png", "a\0/b.png"])
def test_a_list_with_a_path_that_none_can_be_is_refused(entry: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"a.png\n{entry}\n")
    with pytest.raises(InputError, match=r"expected a path in line 2 of .*list\.txt"):
        list(Source([tmp_path / "list.txt"]).list_ids())
