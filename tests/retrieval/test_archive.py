import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from annofree.errors import ImageError, InputError
from annofree.io.files.checksums import take_checksum
from annofree.retrieval.archive import Archive, MaskWriter, Member, PseudoMask, read_masks


def archive(folder: Path) -> Archive:
    members = {
        "dog": (Member("b.png", 0.5), Member("a.png", 0.25)),
        "cat": (Member("c.png", 0.75), Member("b.png", 0.125)),
        "yeti": (),
    }
    return Archive(("dog", "cat", "yeti"), members, {i: str(folder / i) for i in ("a.png", "b.png", "c.png")}, {"k": 2})


def mask(id: str = "a.png", quality: float = 0.5) -> PseudoMask:  # noqa: A002
    return PseudoMask(id, {"size": [2, 3], "counts": "06"}, quality)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    before = archive(tmp_path)
    before.write(tmp_path / "new" / "archive")
    after = Archive.read(tmp_path / "new" / "archive")
    assert after == before
    assert [p.name for p in (tmp_path / "new" / "archive").iterdir()] == ["archive.json"]


def test_names_of_files_that_are_no_unicode_survive(tmp_path: Path) -> None:
    odd = b"\xff.png".decode("utf-8", "surrogateescape")
    Archive(("dog",), {"dog": (Member(odd, 0.5),)}, {odd: odd}).write(tmp_path)
    assert Archive.read(tmp_path).ids == (odd,)


def test_each_picture_once_in_a_fixed_order(tmp_path: Path) -> None:
    assert archive(tmp_path).ids == ("b.png", "a.png", "c.png")
    assert len(archive(tmp_path)) == 3


def test_a_picture_may_be_in_several_archives(tmp_path: Path) -> None:
    one = archive(tmp_path)
    assert [one.list_classes(i) for i in ("a.png", "b.png", "c.png", "z.png")] == [("dog",), ("dog", "cat"), ("cat",), ()]


def test_pictures_are_opened(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "a.png")
    image = archive(tmp_path).open("a.png")
    assert (image.id, image.size, image.pixels[0, 0].tolist()) == ("a.png", (2, 3), [1, 2, 3])
    with pytest.raises(ImageError, match=r"b\.png"):
        archive(tmp_path).open("b.png")
    with pytest.raises(InputError, match=r"z\.png"):
        archive(tmp_path).open("z.png")


@pytest.mark.parametrize(
    ("names", "members", "said"),
    [
        (("dog",), {"cat": ()}, "dog.*cat"),
        (("dog", "dog"), {"dog": ()}, "once"),
        (("dog",), {"dog": (Member("a", 1), Member("a", 0.5))}, "'a' more than once"),
        (("dog",), {"dog": (Member("b", 1),)}, "place.*'b'"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    names: tuple[str, ...], members: dict[str, tuple[Member, ...]], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        Archive(names, members, {"a": "a"})


@pytest.mark.parametrize("text", [None, "{", "[]", '{"format": "other"}', '{"format": "annofree archive 1"}'])
def test_what_is_no_archive_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "archive.json").write_text(text)
    with pytest.raises(InputError, match="archive"):
        Archive.read(tmp_path)


def test_masks_are_appended(tmp_path: Path) -> None:
    assert read_masks(tmp_path) == {}
    with MaskWriter(tmp_path, {"model": "m"}) as writer:
        writer.add(mask("a.png"))
        assert list(read_masks(tmp_path)) == ["a.png"]  # at once
    with MaskWriter(tmp_path, {"model": "m"}) as writer:
        assert writer.done == {"a.png"}
        writer.add(PseudoMask("b.png", {"size": (2, 3), "counts": b"6"}, np.float32(0)))  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"second one for 'a\.png'"):
            writer.add(mask("a.png"))
    assert read_masks(tmp_path) == {"a.png": mask("a.png"), "b.png": PseudoMask("b.png", {"size": [2, 3], "counts": "6"}, 0)}
    assert take_checksum(json.loads((tmp_path / "masks-about.json").read_text())) == {"model": "m"}


def test_a_torn_last_line_is_dropped_and_written_over(tmp_path: Path) -> None:
    with MaskWriter(tmp_path) as writer:
        for id in ("a.png", "b.png"):  # noqa: A001
            writer.add(mask(id))
    whole = (tmp_path / "masks.jsonl").read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        (tmp_path / "masks.jsonl").write_bytes(whole[:cut])
        assert list(read_masks(tmp_path)) == ["a.png"]
        with MaskWriter(tmp_path) as writer:
            writer.add(mask("b.png"))
        assert (tmp_path / "masks.jsonl").read_bytes() == whole


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    (tmp_path / "masks.jsonl").write_text('{"id": "a", "size": [2, 3], "counts": "06", "quality": 1}\n{"id": "b"}\n')
    with pytest.raises(InputError, match="line 2"):
        read_masks(tmp_path)


def test_masks_of_another_model_are_refused(tmp_path: Path) -> None:
    with MaskWriter(tmp_path, {"model": "m", "side": 512}):
        pass
    with MaskWriter(tmp_path, {"model": "n", "side": 512}) as writer:  # there was no mask yet
        writer.add(mask())
    with pytest.raises(InputError, match="model was 'n', now 'm'"):
        MaskWriter(tmp_path, {"model": "m", "side": 512})
