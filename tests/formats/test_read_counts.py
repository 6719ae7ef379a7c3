"""What readers of LabelMe, Label Studio and CVAT pass over is counted: objects of a file are those read and those named."""

from __future__ import annotations

import json
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annofree.errors import InputError
from annofree.formats.annotations import AnnotatedImage, list_images
from annofree.formats.passed_over import PassedOver
from annofree.formats.registry import export, find_format, read
from annofree.ops.brush import encode_brush
from annofree.ops.rle import decode_rle

SIZE = (30, 40)
COMMON = {"original_width": 40, "original_height": 30, "image_rotation": 0, "to_name": "image", "from_name": "x"}
NUMBERS = st.one_of(st.integers(-10, 50), st.sampled_from([float("nan"), 1e12, "x", None]))
NAMES = st.sampled_from(["dog", " dog", "cat\n", "橙"])


@st.composite
def labelme_shapes(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["rectangle", "polygon", "circle", "line", "point", "rotation", "linestrip", "mask", "odd"]))
    points = draw(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=0, max_size=5))
    shape = {"label": draw(NAMES), "shape_type": kind, "points": points, "group_id": None}
    return shape | ({"mask": draw(st.sampled_from(["", "AAAA", None]))} if kind == "mask" else {})


@st.composite
def cvat_shapes(draw: st.DrawFn) -> dict[str, str]:
    tag = draw(st.sampled_from(["box", "polygon", "polyline", "points", "ellipse", "cuboid", "skeleton", "mask"]))
    number = NUMBERS.map(str)
    keys = [*("xtl", "ytl", "xbr", "ybr"), "points", *("rle", "left", "top", "width", "height")]
    values = {key: draw(number) for key in draw(st.sets(st.sampled_from(keys), min_size=3))}
    values["points"] = ";".join(f"{x},{y}" for x, y in draw(st.lists(st.tuples(number, number), max_size=4)))
    return {"tag": tag, "label": draw(NAMES), "rotation": draw(st.sampled_from(["0", "0.0", "30"]))} | values


@st.composite
def regions(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(
        st.sampled_from(["rectanglelabels", "polygonlabels", "brushlabels", "ellipselabels", "keypointlabels", "labels"])
    )
    value: dict[str, Any] = {key: draw(NUMBERS) for key in draw(st.sets(st.sampled_from(["x", "y", "width", "height"])))}
    value |= draw(st.sampled_from([{}, {"points": [[1, 1], [50, 1], [50, 50]]}, {"points": [[1, 1]]}, {"rle": [0, 1]}]))
    value |= {kind: draw(st.lists(NAMES, max_size=1)), "rotation": draw(st.sampled_from([0, 0, 30]))}
    return {"type": kind, "value": value, "id": draw(st.sampled_from(["a", "b"])), **COMMON}


def write_labelme(folder: Path, shapes: list[dict[str, Any]]) -> None:
    about = {"imagePath": "a.jpg", "imageHeight": 30, "imageWidth": 40, "shapes": shapes}
    (folder / "a.json").write_text(json.dumps(about))


def write_cvat(folder: Path, shapes: list[dict[str, str]]) -> None:
    root = ET.Element("annotations")
    image = ET.SubElement(root, "image", id="0", name="a.jpg", width="40", height="30")
    for shape in shapes:
        ET.SubElement(image, shape["tag"], {key: value for key, value in shape.items() if key != "tag"})
    ET.ElementTree(root).write(folder / "annotations.xml")


def write_tasks(folder: Path, result: list[dict[str, Any]]) -> None:
    write_answers(folder, [{"id": 1, "result": result}])


def write_answers(folder: Path, annotations: list[dict[str, Any]], **more: Any) -> None:
    task = {"data": {"image": "/data/upload/1/a.jpg"}, "annotations": annotations, "predictions": []}
    (folder / "tasks.json").write_text(json.dumps([task | more]))


def read_counted(name: str, folder: Path, images: Path | None = None) -> tuple[list[AnnotatedImage], PassedOver]:
    passed = PassedOver(skip_unsupported=True)
    return list_images(read(name, folder, images, passed)), passed


def check_all_are_counted(name: str, count: int, write: Callable[[Path], None]) -> None:
    """Objects read and objects named are those of the file; what is read, written and read again stays as it is."""
    with tempfile.TemporaryDirectory() as folder:
        (source := Path(folder) / "source").mkdir()
        write(source)
        images, passed = read_counted(name, source)
        left = sum(remark.count for remark in passed.left_out if remark.what == "objects")
        assert sum(len(image.things) for image in images) + left == count
        first, second = Path(folder) / "1", Path(folder) / "2"
        export(read(name, source, None, PassedOver(skip_unsupported=True)), name, first)
        export(read(name, first), name, second)
        assert files(first) == files(second)


def files(folder: Path) -> dict[str, bytes]:
    found = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "fidelity.json")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


@settings(deadline=None, max_examples=60)
@given(st.lists(labelme_shapes(), max_size=6))
def test_all_shapes_of_labelme_are_counted(shapes: list[dict[str, Any]]) -> None:
    check_all_are_counted("labelme", len(shapes), lambda folder: write_labelme(folder, shapes))


@settings(deadline=None, max_examples=60)
@given(st.lists(cvat_shapes(), max_size=6))
def test_all_shapes_of_cvat_are_counted(shapes: list[dict[str, str]]) -> None:
    check_all_are_counted("cvat", len(shapes), lambda folder: write_cvat(folder, shapes))


@settings(deadline=None, max_examples=60)
@given(st.lists(regions(), max_size=6))
def test_all_regions_of_label_studio_are_counted(result: list[dict[str, Any]]) -> None:
    check_all_are_counted("label-studio", len(result), lambda folder: write_tasks(folder, result))


def rectangle(name: str, x: float, **more: Any) -> dict[str, Any]:
    value = {"x": x, "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": [name]}
    return {"type": "rectanglelabels", "value": value, "id": "r", **COMMON, **more}


def test_shapes_of_one_group_stay_several_or_are_joined(tmp_path: Path) -> None:
    box = {"label": "dog", "shape_type": "rectangle", "group_id": 1}
    part = {"label": "dog", "shape_type": "polygon", "group_id": 1}
    shapes = [
        box | {"points": [[2, 2], [8, 8]]},
        part | {"points": [[0, 0], [3, 0], [3, 3]]},
        box | {"points": [[20, 12], [30, 20]]},
        part | {"points": [[9, 9], [12, 9], [12, 12]]},
        box | {"points": [[1, 1], [2, 1], [2, 2], [1, 2]], "group_id": "a"},
    ]
    write_labelme(tmp_path, shapes)
    (image,) = list_images(read("labelme", tmp_path))
    assert [thing.box for thing in image.things] == [(2, 2, 8, 8), (0, 0, 13, 13), (20, 12, 30, 20), (1, 1, 2, 2)]


def test_the_submitted_answer_is_taken_and_others_are_counted(tmp_path: Path) -> None:
    cancelled = {"id": 1, "was_cancelled": True, "result": [rectangle("cat", 70)]}
    first, second = ({"id": k, "result": [rectangle("dog", k), rectangle("dog", 40)]} for k in (2, 3))
    write_answers(tmp_path, [cancelled, first, second], predictions=[{"result": [rectangle("cow", 0)]}])
    (image,), passed = read_counted("label-studio", tmp_path)
    assert [(thing.name, thing.box[0]) for thing in image.things] == [("dog", 0.8), ("dog", 16)]
    assert [(remark.reason, remark.count) for remark in passed.left_out] == [
        ("a further answer to the task", 2),
        ("a cancelled annotation", 1),
    ]
    write_answers(tmp_path, [first, second | {"ground_truth": True}])
    (image,) = list_images(read("label-studio", tmp_path))
    assert image.things[0].box[0] == pytest.approx(1.2)
    write_answers(tmp_path, [cancelled])
    (image,) = list_images(read("label-studio", tmp_path))
    assert (image.size, image.things) == (SIZE, ())


def test_labels_may_come_apart_from_their_region(tmp_path: Path) -> None:
    bare: dict[str, Any] = {"type": "rectangle", "id": "q", "value": {"x": 10, "y": 10, "width": 20, "height": 20}, **COMMON}
    labels = {"type": "labels", "id": "q", "value": bare["value"] | {"labels": ["dog"]}, **COMMON}
    alone = rectangle("cat", 50, type="labels")
    alone["value"]["labels"] = alone["value"].pop("rectanglelabels")
    brush = {
        "type": "labels",
        "id": "b",
        "value": {"rle": encode_brush(np.eye(30, 40, dtype=bool)), "labels": ["eye"]},
        **COMMON,
    }
    write_tasks(tmp_path, [bare, labels, alone, brush, {"type": "choices", "value": {"choices": ["good"]}}])
    (image,), passed = read_counted("label-studio", tmp_path)
    assert [thing.name for thing in image.things] == ["dog", "cat", "eye"] and not passed.left_out
    assert image.things[2].rle and np.array_equal(decode_rle(image.things[2].rle), np.eye(30, 40))


def test_further_labels_of_a_region_are_counted(tmp_path: Path) -> None:
    region = rectangle("dog", 10)
    region["value"]["rectanglelabels"] = ["dog", "wet"]
    write_tasks(tmp_path, [region])
    _, passed = read_counted("label-studio", tmp_path)
    assert passed.losses == ["1 labels passed over when reading"]


def test_the_size_of_a_task_without_regions_is_that_of_its_picture(tmp_path: Path) -> None:
    write_answers(tmp_path, [])
    with pytest.raises(InputError, match=r"no image a\.jpg in --image-root"):
        read("label-studio", tmp_path)
    PIL.Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    (image,) = list_images(read("label-studio", tmp_path, tmp_path))
    assert (image.file_name, image.size, image.things) == ("a.jpg", SIZE, ())


def test_pictures_of_one_name_in_two_folders_stay_two(tmp_path: Path) -> None:
    places = ["/data/local-files/?d=train/a.jpg", "/data/local-files/?d=val/a.jpg", "/data/local-files/?d=val/a.jpg"]
    tasks = [{"data": {"photo": place}, "annotations": [{"result": [rectangle("dog", 10)]}]} for place in places]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    images, passed = read_counted("label-studio", tmp_path)
    assert [image.file_name for image in images] == ["a.jpg", "val/a.jpg"]
    assert passed.losses == ["1 objects passed over when reading"]
    (tmp_path / "val").mkdir()
    PIL.Image.new("RGB", (40, 30)).save(tmp_path / "val" / "a.jpg")
    images, _ = read_counted("label-studio", tmp_path, tmp_path)
    assert [image.file_name for image in images] == ["a.jpg", "val/a.jpg"]


def test_swapped_corners_are_put_in_order_and_said_so(tmp_path: Path) -> None:
    write_cvat(tmp_path, [{"tag": "box", "label": "dog", "xtl": "15", "ytl": "13", "xbr": "5", "ybr": "5"}])
    (image,), passed = read_counted("cvat", tmp_path)
    assert image.things[0].box == (5, 5, 15, 13) and "put in order" in str(passed.fixed[0])


@pytest.mark.parametrize(("left", "area"), [(-1, 6), (38, 6), (5, 9)])
def test_a_mask_partly_outside_is_cut(left: int, area: int, tmp_path: Path) -> None:
    shape = {"tag": "mask", "label": "dog", "rle": "0, 9", "left": str(left), "top": "2", "width": "3", "height": "3"}
    write_cvat(tmp_path, [shape])
    (image,), passed = read_counted("cvat", tmp_path)
    assert image.things[0].rle and decode_rle(image.things[0].rle).sum() == area
    assert bool(passed.fixed) == (area < 9)


def test_all_odd_shapes_are_named_and_not_only_the_first(tmp_path: Path) -> None:
    odd = [
        {"tag": "ellipse", "label": "dog"},
        {"tag": "box", "label": "dog", "rotation": "30"},
        {"tag": "points", "label": "x"},
    ]
    write_cvat(tmp_path, odd)
    with pytest.raises(
        InputError, match=r"got 3 that cannot: .*shape 1: a <ellipse>.*shape 2: a turned <box>.*shape 3"
    ) as refusal:
        read("cvat", tmp_path)
    assert "--skip-unsupported" in str(refusal.value)


@pytest.mark.parametrize("name", ["labelme", "label-studio", "cvat"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marks_and_encodings_of_other_programs(name: str, encoding: str, tmp_path: Path) -> None:
    box = {"tag": "box", "label": "橙", "xtl": "1", "ytl": "1", "xbr": "5", "ybr": "5"}
    shape = {"label": "橙", "shape_type": "rectangle", "points": [[1, 1], [5, 5]]}
    write = {
        "labelme": lambda: write_labelme(tmp_path, [shape]),
        "cvat": lambda: write_cvat(tmp_path, [box]),
        "label-studio": lambda: write_tasks(tmp_path, [rectangle("橙", 1)]),
    }
    write[name]()
    (place,) = tmp_path.iterdir()
    place.write_text(place.read_text(encoding="utf-8"), encoding=encoding)
    (image,) = list_images(read(name, tmp_path))
    assert [thing.name for thing in image.things] == ["橙"]


def test_claims_of_size_are_bounded(tmp_path: Path) -> None:
    about = {"imagePath": "a.jpg", "imageHeight": 10**6, "imageWidth": 10**6, "shapes": []}
    (tmp_path / "a.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="at most"):
        find_format("labelme").read(tmp_path, None, None).gather()
