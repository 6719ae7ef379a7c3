import json
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annofree.errors import InputError
from annofree.formats.label_maps import (
    ClassList,
    assign_label_colors,
    choose_void_index,
    read_indices,
    read_label_map,
    write_label_map,
)
from annofree.ops.palette import BACKGROUND_COLOR, make_palette
from annofree.structures import VOID, LabelMap


def a_map(size: tuple[int, int], count: int, background: int | None = 0, seed: int = 0) -> LabelMap:
    labels = np.random.default_rng(seed).integers(VOID, count, size, np.int32)
    return LabelMap(labels, tuple(f"class {k}" for k in range(count)), background)


def there_and_back(folder: Path, original: LabelMap) -> LabelMap:
    write_label_map(folder / "a.png", original)
    ClassList.of(original).write(folder)
    return read_label_map(folder / "a.png", ClassList.read(folder))


@pytest.mark.parametrize("count", [1, 2, 21, 255, 256, 500, 920])
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (37, 53)])
def test_what_is_written_is_read(tmp_path: Path, count: int, size: tuple[int, int]) -> None:
    original = a_map(size, count, background=count - 1)
    again = there_and_back(tmp_path, original)
    assert (again.labels == original.labels).all()
    assert again.names == original.names and again.background == original.background


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 9), st.booleans(), st.integers(0, 1000))
def test_any_map_survives(
    tmp_path_factory: pytest.TempPathFactory, count: int, height: int, width: int, named: bool, seed: int
) -> None:
    original = a_map((height, width), count, 0 if named else None, seed)
    again = there_and_back(tmp_path_factory.mktemp("maps"), original)
    assert (again.labels == original.labels).all() and again.background == original.background


def test_all_void(tmp_path: Path) -> None:
    original = LabelMap(np.full((4, 5), VOID, np.int32), ("dog",))
    assert (there_and_back(tmp_path, original).labels == VOID).all()


def test_few_names_make_a_palette_picture_and_many_a_grey_one_of_16_bits(tmp_path: Path) -> None:
    write_label_map(tmp_path / "few.png", a_map((8, 8), 255))
    write_label_map(tmp_path / "many.png", a_map((8, 8), 256))
    with PIL.Image.open(tmp_path / "few.png") as few, PIL.Image.open(tmp_path / "many.png") as many:
        assert few.mode == "P" and many.mode.startswith("I")
        assert np.asarray(few).max() == 255 and np.asarray(many).max() == 65535


def test_a_viewer_shows_the_colours_of_the_names(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2, VOID]], np.int32)
    write_label_map(tmp_path / "a.png", LabelMap(labels, ("background", "dog", "cat"), 0))
    with PIL.Image.open(tmp_path / "a.png") as image:
        shown = np.asarray(image.convert("RGB"))[0].tolist()
    assert shown == [[0, 0, 0], *map(list, make_palette(2)), [224, 224, 192]]


@pytest.mark.parametrize("count", [1, 21, 254, 255, 256, 500, 5000])
@pytest.mark.parametrize("background", [None, 0])
def test_no_two_names_share_a_colour_and_none_has_voids(count: int, background: int | None) -> None:
    colors = {tuple(c) for c in assign_label_colors([f"class {k}" for k in range(count)], background).tolist()}
    assert len(colors) == count
    assert (224, 224, 192) not in colors
    assert ((0, 0, 0) in colors) == (background is not None)


def test_the_background_takes_no_color_of_a_name() -> None:
    first, second = map(list, make_palette(2))
    assert assign_label_colors(["background", "dog", "cat"], 0).tolist() == [[0, 0, 0], first, second]
    assert assign_label_colors(["dog", "background", "cat"], 1).tolist() == [first, [0, 0, 0], second]
    assert assign_label_colors(["_background", "background", "cat"], 0).tolist() == [[0, 0, 0], list(BACKGROUND_COLOR), first]


def test_other_colors_are_written_where_a_format_has_its_own(tmp_path: Path) -> None:
    own = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    write_label_map(tmp_path / "a.png", LabelMap(np.array([[0, 1]], np.int32), ("a", "b")), own)
    with PIL.Image.open(tmp_path / "a.png") as image:
        assert np.asarray(image.convert("RGB"))[0].tolist() == own.tolist()
    ClassList(("a", "b")).write(tmp_path, own)
    assert json.loads((tmp_path / "classes.json").read_text())["palette"] == own.tolist()


def test_grey_pictures_are_read_too(tmp_path: Path) -> None:
    values = np.array([[0, 1], [2, 255]], np.uint8)
    PIL.Image.fromarray(values).save(tmp_path / "grey.png")
    assert (read_label_map(tmp_path / "grey.png", ClassList(("a", "b", "c"))).labels == [[0, 1], [2, VOID]]).all()


def gray_png(path: Path, depth: int, row: bytes, width: int) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, 1, depth, 0, 0, 0, 0)
    body = zlib.compress(b"\0" + row)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


@pytest.mark.parametrize(
    ("depth", "row", "values"), [(1, b"\x50", [0, 1, 0, 1]), (2, b"\x1b", [0, 1, 2, 3]), (4, b"\x01\x9f", [0, 1, 9, 15])]
)
def test_grey_values_of_few_bits_are_indices_not_shades(tmp_path: Path, depth: int, row: bytes, values: list[int]) -> None:
    gray_png(tmp_path / "a.png", depth, row, 4)
    assert read_indices(tmp_path / "a.png").tolist() == [values]


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_palette_values_of_few_bits(tmp_path: Path, depth: int) -> None:
    image = PIL.Image.fromarray(np.array([[0, 1, 1, 0]], np.uint8))
    image.putpalette([0, 0, 0, 9, 9, 9])
    image.save(tmp_path / "a.png", bits=depth)
    assert read_indices(tmp_path / "a.png").tolist() == [[0, 1, 1, 0]]


def test_void_may_be_another_index_and_may_be_left_out(tmp_path: Path) -> None:
    PIL.Image.fromarray(np.array([[0, 7]], np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "classes.json").write_text('{"names": ["a", "b"], "void": 7}')
    assert read_label_map(tmp_path / "a.png", ClassList.read(tmp_path)).labels.tolist() == [[0, VOID]]
    (tmp_path / "classes.json").write_text('{"names": ["a", "b"]}')
    assert ClassList.read(tmp_path) == ClassList(("a", "b"), None, 255)


def test_classes_json_says_it_all(tmp_path: Path) -> None:
    ClassList(("background", "dog"), 0).write(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "classes.json").read_text()) == {
        "names": ["background", "dog"],
        "background": 0,
        "void": 255,
        "palette": [[0, 0, 0], list(make_palette(1)[0])],
    }


@pytest.mark.parametrize(
    "text", ["nonsense", "[]", '{"names": "dog"}', '{"names": ["a"], "background": "a"}', '{"names": ["a"], "void": null}']
)
def test_a_list_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(InputError, match=r"expected JSON like"):
        ClassList.read(tmp_path)


@pytest.mark.parametrize(
    ("names", "background", "void", "why"),
    [((), None, 255, "got none"), (("a", "a"), None, 255, "'a'"), (("a",), 1, 255, "background"), (("a", "b"), 0, 1, "void")],
)
def test_lists_that_contradict_themselves(names: tuple[str, ...], background: int | None, void: int, why: str) -> None:
    with pytest.raises(InputError, match=why):
        ClassList(names, background, void)


def test_a_folder_without_a_list_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"classes\.json beside the label maps .* write one"):
        ClassList.read(tmp_path)


def test_pictures_in_colour_are_refused(tmp_path: Path) -> None:
    for mode in ("RGB", "RGBA", "LA"):
        PIL.Image.new(mode, (3, 2)).save(tmp_path / "a.png")
        with pytest.raises(InputError, match=f"in colour .mode {mode}"):
            read_indices(tmp_path / "a.png")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_indices(tmp_path / "a.png")
    PIL.Image.new("L", (3, 2)).save(tmp_path / "a.jpg")
    write_label_map(tmp_path / "whole.png", a_map((64, 64), 20))
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("a.jpg", "cut.png", "empty.png"):
        with pytest.raises(InputError, match=f"{name} cannot be read"):
            read_indices(tmp_path / name)


def test_indices_without_a_name_are_refused(tmp_path: Path) -> None:
    PIL.Image.fromarray(np.array([[0, 3, 255]], np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"indices from 0 to 1, or 255 for void, .* got 3"):
        read_label_map(tmp_path / "a.png", ClassList(("a", "b")))


def test_more_names_than_a_file_can_hold() -> None:
    assert choose_void_index(65535) == 65535
    with pytest.raises(InputError, match="at most 65535"):
        choose_void_index(65536)


def test_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    write_label_map(tmp_path / "a.png", a_map((5, 5), 3))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
