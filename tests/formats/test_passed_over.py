"""What is in a file is read, or named as passed over with its place and the reason; writing what was read changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import PIL.Image
import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

import annofree
from annofree.errors import InputError
from annofree.formats.annotations import list_images
from annofree.formats.coco import CocoFile
from annofree.formats.passed_over import PassedOver
from annofree.formats.registry import export, read
from annofree.ops.rle import encode_rle, to_json_rle

SIZE = (12, 16)
MASK = to_json_rle(encode_rle(np.pad(np.ones((4, 5), bool), ((2, 6), (3, 8)))))

few = settings(max_examples=60, deadline=None)


def draw(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (size[1], size[0])).save(path)


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def coco(**more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 4, 4], "iscrowd": 0, "area": 16}
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "height": SIZE[0], "width": SIZE[1]}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [row],
    } | more


def annotation(**more: Any) -> dict[str, Any]:
    row: dict[str, Any] = coco()["annotations"][0]
    return row | more


def read_coco(folder: Path, data: dict[str, Any], passed: PassedOver | None = None, images: Path | None = None) -> CocoFile:
    return read("coco", write(folder / "a.json", json.dumps(data)), images, passed)


def assert_fixed_point(file: CocoFile, name: str, folder: Path) -> None:
    """What is written, read and written again is the same, to the byte."""
    export(file, name, folder / "one")
    export(read(name, folder / "one"), name, folder / "two")
    trees = []
    for root in (folder / "one", folder / "two"):
        files = (p for p in root.rglob("*") if p.is_file() and p.name != "fidelity.json")
        trees.append({p.relative_to(root): p.read_bytes() for p in files})
    assert trees[0] == trees[1]


def count(file: CocoFile, passed: PassedOver) -> int:
    return len(file.annotations) + sum(remark.count for remark in passed.left_out if remark.what == "objects")


# whether an object like this can be read, and what it looks like
NUMBER: st.SearchStrategy[Any] = st.sampled_from([0, 1, 2.5, 4, -3, float("nan"), float("inf"), None, "2", "x", [], True])
BOX = st.none() | st.lists(NUMBER, max_size=5) | st.just([1, 2, 3, 4])
POLYGON = st.lists(NUMBER, max_size=8) | st.just([1, 1, 6, 1, 6, 6])
COUNTS = st.sampled_from([MASK["counts"], "5", "0PVe3", "b'x'", "é", 7, [192], [100.0, 92.0], [1.5, 190.5], [-1, 193], None])
DRAWN = st.none() | POLYGON | st.lists(POLYGON, max_size=2) | st.builds(lambda c: {"size": list(SIZE), "counts": c}, COUNTS)
ID = st.sampled_from([1, "1", 1.0, 2, "x", None, [1], float("nan")])
ROW = st.fixed_dictionaries(
    {"id": st.integers(0, 5) | st.none(), "image_id": ID, "category_id": ID},
    optional={"bbox": BOX, "segmentation": DRAWN, "score": NUMBER, "area": NUMBER, "iscrowd": NUMBER},
)


@few
@given(st.lists(ROW | st.sampled_from(["text", None, 7]), max_size=6))
def test_coco_annotations_are_read_or_named(rows: list[Any]) -> None:
    with TemporaryDirectory() as folder:
        passed = PassedOver(skip_unsupported=True)
        file = read_coco(Path(folder), coco(annotations=rows), passed)
        assert count(file, passed) == len(rows)
        repeated, again = [*rows, *rows], PassedOver(skip_unsupported=True)
        assert count(read_coco(Path(folder), coco(annotations=repeated), again), again) == len(repeated)
        for name in ("coco", "coco-polygons", "yolo-det", "voc"):
            report = export(file, name, Path(folder) / name)
            assert report.objects + report.crowds_left_out == len(file.annotations)
        assert_fixed_point(file, "coco", Path(folder))


WORD = st.sampled_from(["0.5", "0.25", "0.1", "1", "0", "-0.2", "nan", "inf", "1e9", "x", "7"])
CLASS = st.sampled_from(["0", "1", "0.0", "9", "-1", "x", "nan"])
LINE = st.builds(lambda index, words: " ".join([index, *words]), CLASS, st.lists(WORD, max_size=9))
FILES = st.dictionaries(st.sampled_from("abcd"), st.lists(LINE, max_size=4) | st.none(), min_size=1)


@few
@given(FILES, st.sampled_from([None, [2, 2]]))
def test_yolo_lines_are_read_or_named(files: dict[str, list[str] | None], pose: list[int] | None) -> None:
    with TemporaryDirectory() as place:
        folder, passed = Path(place), PassedOver(skip_unsupported=True)
        write(folder / "data.yaml", yaml.safe_dump({"train": "images", "names": ["dog", "cat"], "kpt_shape": pose}))
        write(folder / "labels" / "z.txt", "0 0.5 0.5 0.1 0.1\n")  # of no image
        draw(folder / "images" / "y.png")
        write(folder / "labels" / "y.txt", "1 0.5 0.5 0.5 0.5\n")
        for name, lines in files.items():
            draw(folder / "images" / f"{name}.png")
            if lines is not None:
                write(folder / "labels" / f"{name}.txt", "\n".join(lines))
        file = read("yolo-seg", folder, None, passed)
        assert count(file, passed) == 2 + sum(len(lines or ()) for lines in files.values())
        absent = [remark for remark in passed.left_out if remark.what == "label files"]
        assert len(absent) == sum(lines is None for lines in files.values())


CORNER = st.sampled_from(["1", "3", "5.5", "12", "-2", "nan", "inf", "", "x", "1e99"])
OBJECT = st.tuples(st.sampled_from(["dog", " dog", "cat\n", ""]), st.lists(CORNER, min_size=3, max_size=4))


@few
@given(st.lists(OBJECT, max_size=5))
def test_voc_objects_are_read_or_named(objects: list[tuple[str, list[str]]]) -> None:
    with TemporaryDirectory() as place:
        folder, passed = Path(place), PassedOver(skip_unsupported=True)
        inner = ""
        for name, corners in objects:
            tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=False)
            box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
            inner += f"<object><name>{name}</name><bndbox>{box}</bndbox></object>"
        size = "<size><width>16</width><height>12</height></size>"
        write(folder / "Annotations/a.xml", f"<annotation><filename>a.jpg</filename>{size}{inner}</annotation>")
        file = read("voc", folder, None, passed)
        assert count(file, passed) == len(objects)
        assert {row["name"] for row in file.categories} <= {"dog", "cat"}
        assert_fixed_point(file, "voc", folder)


@few
@given(st.lists(st.sampled_from([0, 1, 2, 255]), min_size=12, max_size=12))
def test_regions_of_label_maps_are_read(values: list[int]) -> None:
    with TemporaryDirectory() as place:
        folder, passed = Path(place), PassedOver()
        write(folder / "classes.json", json.dumps({"names": ["background", "dog", "cat"], "background": 0}))
        PIL.Image.fromarray(np.array(values, np.uint8).reshape(3, 4)).save(folder / "a.PNG")
        draw(folder / "b.bmp")
        file = read("png", folder, None, passed)
        assert count(file, passed) == len({1, 2} & set(values))
        assert [Path(remark.file).name for remark in passed.left_out] == ["b.bmp"]
        assert_fixed_point(file, "png", folder / "out")


@few
@given(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 10), st.integers(1, 2), st.booleans()), max_size=4))
def test_written_yolo_is_a_fixed_point(things: list[tuple[int, int, int, bool]]) -> None:
    rows = []
    for k, (x, y, category, masked) in enumerate(things):
        mask = np.zeros(SIZE, bool)
        mask[y : y + 2, x : x + 2] = True
        drawn = to_json_rle(encode_rle(mask)) if masked else []
        rows.append(annotation(id=k, category_id=category, bbox=[x, y, 2, 2], segmentation=drawn))
    with TemporaryDirectory() as place:
        file = read_coco(Path(place), coco(annotations=rows))
        for name in ("yolo-seg", "yolo-det"):
            assert_fixed_point(file, name, Path(place) / name)


def test_a_refusal_names_all_and_skipping_them_names_them_in_the_report(tmp_path: Path) -> None:
    rows = [annotation(id=k, bbox=[0, 0, float("nan"), 1]) for k in range(3)] + [annotation(id=7)]
    source = write(tmp_path / "a.json", json.dumps(coco(annotations=rows)))
    with pytest.raises(InputError, match=r"got 3 that cannot: .*annotation 0 .*annotation 2 .*--skip-unsupported"):
        annofree.convert(source, tmp_path / "out", from_="coco", to="voc")
    assert not (tmp_path / "out").exists()
    report = annofree.convert(source, tmp_path / "out", from_="coco", to="voc", skip_unsupported=True)
    assert report.objects == 1 and report.losses[0] == "3 objects passed over when reading"
    assert "annotation 2 (id 2): expected finite numbers" in report.as_table()
    saved = json.loads((tmp_path / "out/fidelity.json").read_text())
    assert [remark["place"] for remark in saved["passed_over"]] == [f"annotation {k} (id {k})" for k in range(3)]


def test_swapped_corners_are_put_in_order_and_said(tmp_path: Path) -> None:
    passed = PassedOver()
    file = read_coco(tmp_path, coco(annotations=[annotation(bbox=[9, 8, -5, -6])]), passed)
    assert file.annotations[0]["bbox"] == [4, 2, 5, 6] and "wrong order" in str(passed.fixed[0])
    box = "<bndbox><xmin>9</xmin><ymin>8</ymin><xmax>3</xmax><ymax>2</ymax></bndbox>"
    size = "<size><width>16</width><height>12</height></size>"
    text = f"<annotation><filename>a.jpg</filename>{size}<object><name>dog</name>{box}</object></annotation>"
    write(tmp_path / "voc/Annotations/a.xml", text)
    file = read("voc", tmp_path / "voc", None, passed)
    assert file.annotations[0]["bbox"] == [2, 1, 7, 7] and len(passed.fixed) == 2


@pytest.mark.parametrize("name", ["coco", "yolo-det", "voc"])
def test_boxes_without_an_area_are_found_again(name: str, tmp_path: Path) -> None:
    report = export(read_coco(tmp_path, coco(annotations=[annotation(bbox=[5, 5, 0, 0])])), name, tmp_path / "out")
    assert (report.found, report.lost, report.added) == (1, 0, 0)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda d: d["images"].append(dict(d["images"][0], id="1")), "each image id once .* got '1' twice"),
        (lambda d: d["categories"].append({"id": 1.0, "name": "cow"}), "each category id once"),
        (lambda d: d["images"][0].update(id=[1]), "an id as a number or a text"),
        (lambda d: d["images"][0].update(height=0), "height and width of each image"),
        (lambda d: d["images"][0].update(height=-3), "at least one pixel"),
        (lambda d: d["images"][0].update(height=10**9), "an image of at most"),
        (lambda d: d["images"][0].update(file_name=None), "a file_name of each image"),
        (lambda d: d["annotations"].append(annotation()), "an id that another annotation has"),
        (lambda d: d["annotations"][0].update(image_id=9), "image 9, which the file does not list"),
        (lambda d: d["annotations"][0].update(score=float("nan")), "finite numbers as a score"),
        (lambda d: d["annotations"][0].update(segmentation={"size": [3, 3], "counts": [9]}), "of the size"),
        (lambda d: d["annotations"][0].update(segmentation={"size": list(SIZE), "counts": "5"}), "add up to 12 x 16"),
        (lambda d: d["annotations"][0].update(segmentation=[[1e30, 1, 2, 2, 3, 3]]), "finite points"),
    ],
)
def test_odd_values_are_refused_where_they_are_read(change: Callable[[Any], None], why: str, tmp_path: Path) -> None:
    data = coco()
    change(data)
    with pytest.raises(InputError, match=why):
        read_coco(tmp_path, data)


def test_what_can_be_understood_is_taken(tmp_path: Path) -> None:
    """Ids of two types, null for absent, a flat polygon, run lengths as 8.0, names with blanks, one name of two classes."""
    rows = [
        annotation(image_id="1", category_id="2", area=None, iscrowd=None, segmentation=[2, 2, 6, 2, 6, 6, 2, 6]),
        annotation(id=None, bbox=None, segmentation={"size": list(SIZE), "counts": [24.0, 6.0, 162.0]}),
    ]
    categories = [{"id": 1, "name": " dog\n"}, {"id": 2, "name": "dog", "supercategory": "toy"}]
    file = read_coco(tmp_path, coco(annotations=rows, categories=categories))
    (image,) = list_images(file)
    assert [t.name for t in image.things] == ["dog (toy)", "dog"] and all(t.rle is not None for t in image.things)
    export(file, "coco", tmp_path / "out")
    assert all(row["area"] in (16, 6) for row in json.loads((tmp_path / "out/annotations.json").read_text())["annotations"])


def test_sizes_that_are_not_said_are_those_of_the_images(tmp_path: Path) -> None:
    draw(tmp_path / "photos/sub/a.jpg", (30, 40))
    data = coco(images=[{"id": 1, "file_name": "sub\\a.jpg", "height": None}])
    (image,) = list_images(read_coco(tmp_path, data, images=tmp_path / "photos"))
    assert image.size == (30, 40)
    draw(tmp_path / "voc/JPEGImages/a.jpg", (30, 40))
    empty = "<annotation><filename>a.jpg</filename><size><width>0</width><height>0</height></size></annotation>"
    write(tmp_path / "voc/Annotations/a.xml", empty)
    assert list_images(read("voc", tmp_path / "voc"))[0].size == (30, 40)


def test_two_entries_of_one_image_are_both_copied(tmp_path: Path) -> None:
    image = coco()["images"][0]
    data = coco(images=[image, {**image, "id": 2}], annotations=[annotation(), annotation(id=2, image_id=2)])
    draw(tmp_path / "photos/a.jpg")
    report = export(read_coco(tmp_path, data), "voc", tmp_path / "out", images="copy", image_root=tmp_path / "photos")
    assert sorted(p.name for p in (tmp_path / "out/JPEGImages").iterdir()) == ["a-2.jpg", "a.jpg"]
    assert (report.found, report.pictures_lost) == (2, [])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "gb2312"])
def test_text_of_any_encoding_is_read(encoding: str, tmp_path: Path) -> None:
    draw(tmp_path / "images/a.png")
    write(tmp_path / "data.yaml", "train: images\nnames: [狗]\n".encode(encoding))
    write(tmp_path / "labels/a.txt", "0 0.5 0.5 0.5 0.5\n".encode(encoding))
    assert [t.name for t in list_images(read("yolo-det", tmp_path))[0].things] == ["狗"]
    size = "<size><width>16</width><height>12</height></size>"
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>3</xmax><ymax>2</ymax></bndbox>"
    head = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig").removesuffix("-le")}"?>'
    body = f"<filename>a.jpg</filename>{size}<object><name>狗</name>{box}</object>"
    place = write(tmp_path / "voc/Annotations/a.xml", f"{head}<annotation>{body}</annotation>".encode(encoding))
    assert [t.name for t in list_images(read("voc", tmp_path / "voc"))[0].things] == ["狗"]
    place.write_bytes(f'{head}<!DOCTYPE a [<!ENTITY x "y">]><annotation>{body}</annotation>'.encode(encoding))
    with pytest.raises(InputError, match="declares a document type"):
        read("voc", tmp_path / "voc")
    place = write(tmp_path / "a.json", json.dumps(coco()).encode(encoding))
    assert len(read("coco", place).annotations) == 1


def test_half_signs_are_refused_where_a_file_cannot_be_named_so(tmp_path: Path) -> None:
    file = read_coco(tmp_path, coco(images=[coco()["images"][0] | {"file_name": "\ud800.jpg"}]))
    with pytest.raises(InputError, match="rename it"):
        export(file, "yolo-seg", tmp_path / "out")
    assert not (tmp_path / "out").exists()
