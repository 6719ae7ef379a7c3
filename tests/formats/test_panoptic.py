import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from annofree.detections.panoptic import PanopticMap, merge_panoptic
from annofree.errors import InputError
from annofree.formats.panoptic import PanopticFile, decode_segment_ids, encode_segment_ids
from annofree.ops.palette import make_palette
from annofree.structures import Detections, LabelMap

NAMES = {1: "dog", 7: "sky"}
IDS = np.array([[0, 3, 3], [70_000, 70_000, 256]], np.int32)
ROWS = [{"id": i, "category_id": c, "area": 1, "bbox": [0, 0, 1, 1], "iscrowd": 0} for i, c in ((3, 1), (256, 7), (70_000, 1))]


@pytest.fixture
def file(tmp_path: Path) -> PanopticFile:
    """One image, written."""
    started = PanopticFile.start(tmp_path / "out" / "val.json", NAMES, stuff=["sky"])
    started.add("a.jpg", IDS, ROWS)
    started.write()
    return started


@given(arrays(np.int32, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(0, 256**3 - 1)))
def test_ids_are_colours(ids: Any) -> None:
    colors = encode_segment_ids(ids)
    assert colors.dtype == np.uint8 and colors.shape == (*ids.shape, 3)
    assert np.array_equal(decode_segment_ids(colors), ids)
    assert all(
        int(i) == r + 256 * g + 256**2 * b for i, (r, g, b) in zip(ids.flat, colors.reshape(-1, 3).tolist(), strict=True)
    )


@pytest.mark.parametrize("id_", [-1, 256**3])
def test_ids_beyond_three_bytes_are_refused(id_: int) -> None:
    with pytest.raises(InputError, match="16777215"):
        encode_segment_ids(np.array([[id_]]))


def test_the_files_are_cocos(file: PanopticFile) -> None:
    data = json.loads(file.path.read_text())
    assert data["images"] == [{"id": 1, "file_name": "a.jpg", "height": 2, "width": 3}]
    assert data["annotations"] == [{"image_id": 1, "file_name": "a.png", "segments_info": ROWS}]
    assert [(c["id"], c["name"], c["isthing"], c["supercategory"]) for c in data["categories"]] == [
        (1, "dog", 1, "thing"),
        (7, "sky", 0, "stuff"),
    ]
    with PIL.Image.open(file.path.parent / "val" / "a.png") as image:
        assert image.mode == "RGB" and image.size == (3, 2)
        assert image.getpixel((0, 1)) == (70_000 % 256, 70_000 // 256 % 256, 70_000 // 65536)
    assert sorted(p.name for p in file.path.parent.rglob("*")) == ["a.png", "val", "val.json"]


def test_each_category_has_its_colour(tmp_path: Path) -> None:
    many = PanopticFile.start(tmp_path / "many.json", {i: f"thing {i}" for i in range(1, 201)})
    colors = [tuple(category["color"]) for category in many.categories]
    assert tuple(colors) == make_palette(200)


def test_what_is_written_is_read(file: PanopticFile) -> None:
    file.info["note"] = "kept"
    assert file.add("deep/b.png", IDS[:1], ROWS[:1]) == 2
    file.add("empty.jpg", IDS * 0, [])
    file.write()
    again = PanopticFile.read(file.path)
    assert again == file
    first, deep, empty = (again.read_segments(annotation) for annotation in again.annotations)
    assert first.dtype == np.int32 and np.array_equal(first, IDS)
    assert np.array_equal(deep, IDS[:1]) and not empty.any() and empty.shape == (2, 3)


def test_a_joined_map_goes_there_and_back(tmp_path: Path) -> None:
    dogs = Detections.from_masks(np.array([[[1, 1, 0]], [[0, 1, 1]]], bool), [0, 0], [0.75, 0.5], ["dog"])
    found = merge_panoptic(dogs, LabelMap(np.ones((1, 3), np.int32), ("dog", "grass")), stuff=["grass"])
    out = PanopticFile.start(tmp_path / "p.json", dict(enumerate(found.names, 1)), stuff=["grass"])
    out.add("x.jpg", found.segments, found.to_coco())
    out.write()
    read = PanopticFile.read(tmp_path / "p.json")
    again = PanopticMap.from_coco(
        read.read_segments(read.annotations[0]), read.annotations[0]["segments_info"], read.categories
    )
    assert np.array_equal(again.segments, found.segments)
    assert again.infos == found.infos and again.names == found.names


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS[1:], "a.jpg .*; 3 of pixels, but not listed"),
        ([*ROWS, ROWS[0] | {"id": 9}], "9 listed, but of no pixel"),
        ([*ROWS, ROWS[0]], "3 listed twice"),
        ([*ROWS[1:], ROWS[0] | {"category_id": 2}], "3 of an unknown category"),
        ([], "3, 256, 70000 of pixels"),
    ],
)
def test_rows_that_are_not_those_of_the_map_are_refused(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    file = PanopticFile.start(tmp_path / "val.json", NAMES)
    with pytest.raises(InputError, match=message):
        file.add("a.jpg", IDS, rows)
    assert not list(file.folder.iterdir()) and not file.images


def test_only_a_few_of_many_ids_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1, 2, 3, 4, 5 and 35 more of pixels"):
        PanopticFile.start(tmp_path / "val.json", NAMES).add("a.jpg", np.arange(41)[None], [])


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "b/../../a.jpg", "", "C:\\a.jpg"])
def test_names_that_leave_the_folder_are_refused(file: PanopticFile, name: str) -> None:
    with pytest.raises(InputError, match="relative"):
        file.add(name, IDS, ROWS)


def test_two_pictures_of_one_stem_are_refused(file: PanopticFile) -> None:
    with pytest.raises(InputError, match="differ before the ending"):
        file.add("a.png", IDS, ROWS)


def test_a_file_that_cannot_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"val\.json"):
        PanopticFile.start(tmp_path / "val", NAMES)
    with pytest.raises(InputError, match="grass"):
        PanopticFile.start(tmp_path / "val.json", NAMES, stuff=["grass"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "not there"),
        ("noise", "cannot be read"),
        ("cut", "cannot be read"),
        ("grey", "RGB PNG, got PNG L"),
        ("size", r"\(2, 3\) that .* says, got \(1, 3\)"),
        ("ids", "256 listed, but of no pixel; 7 of pixels, but not listed"),
        ("image", "image 9, which is not among"),
    ],
)
def test_a_png_that_does_not_fit_is_refused(file: PanopticFile, damage: str, message: str) -> None:
    path, annotation = file.folder / "a.png", dict(file.annotations[0])
    match damage:
        case "missing":
            path.unlink()
        case "noise":
            path.write_bytes(b"noise")
        case "cut":
            path.write_bytes(path.read_bytes()[:45])
        case "grey":
            PIL.Image.new("L", (3, 2)).save(path)
        case "size":
            PIL.Image.fromarray(encode_segment_ids(IDS[:1])).save(path)
        case "ids":
            PIL.Image.fromarray(encode_segment_ids(np.where(IDS == 256, 7, IDS))).save(path)
        case "image":
            annotation["image_id"] = 9
    with pytest.raises(InputError, match=message):
        file.read_segments(annotation)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "not JSON"),
        ("[]", "no images, categories, annotations"),
        ('{"images": [], "annotations": []}', "no categories"),
        ('{"images": [], "categories": [], "annotations": [{"id": 1, "bbox": [0, 0, 1, 1]}]}', "file of instances"),
        ('{"images": [], "categories": [], "annotations": [3]}', "file of instances"),
        ('{"images": [{"id": 1}], "categories": [], "annotations": []}', "height"),
        ('{"images": [], "categories": [], "annotations": [{"segments_info": []}]}', "file_name"),
    ],
)
def test_json_that_is_not_panoptic_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "val.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        PanopticFile.read(path)
