"""Names that no file can have, things that are there twice, and what lies outside are refused where they are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from annofree.errors import InputError
from annofree.formats.annotations import AnnotatedImage, list_images
from annofree.formats.coco import CocoFile
from annofree.formats.panoptic import PanopticFile
from annofree.formats.passed_over import PassedOver
from annofree.formats.registry import export, read

BOX = "<bndbox><xmin>3</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>"
OBJECT = f"<object><name>dog</name>{BOX}</object>"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write_voc(folder: Path, stem: str, *names: str) -> None:
    named = "".join(f"<filename>{name}</filename>" for name in names)
    size = "<size><width>16</width><height>12</height></size>"
    write(folder / f"Annotations/{stem}.xml", f"<annotation>{named}{size}{OBJECT}</annotation>")


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/..", "a/../", "a\0.jpg"])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="expected the name of an image"):
        AnnotatedImage(name, (4, 6))


@pytest.mark.parametrize("name", ["/", "..", "."])
def test_readers_name_it(name: str, tmp_path: Path) -> None:
    shape = {"label": "dog", "points": [[1, 1], [5, 5]], "shape_type": "rectangle"}
    labels = {"imagePath": name, "imageHeight": 12, "imageWidth": 16, "shapes": [shape]}
    write(tmp_path / "labelme/a.json", json.dumps(labels))
    write(tmp_path / "tasks.json", json.dumps([{"data": {"image": name}, "annotations": []}]))
    for kind, place in (("labelme", tmp_path / "labelme"), ("label-studio", tmp_path / "tasks.json")):
        passed = PassedOver(skip_unsupported=True)
        assert list_images(read(kind, place, None, passed)) == [] and len(passed.left_out) == 1


def test_a_second_file_of_one_image_is_named(tmp_path: Path) -> None:
    write_voc(tmp_path, "a", "a.jpg")
    write_voc(tmp_path, "b", "a.jpg")
    with pytest.raises(InputError, match=r"b\.xml: a second file for a\.jpg, after .*a\.xml"):
        read("voc", tmp_path)
    passed = PassedOver(skip_unsupported=True)
    assert len(list_images(read("voc", tmp_path, None, passed))) == len(passed.left_out) == 1
    write_voc(tmp_path / "two", "a", "a.jpg", "b.jpg")
    with pytest.raises(InputError, match="expected one <filename>"):
        read("voc", tmp_path / "two")


def test_a_list_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    lists = '"images": [], "categories": [], "annotations": [], "annotations": []'
    with pytest.raises(InputError, match='"annotations" is there twice in one object'):
        CocoFile.read(write(tmp_path / "a.json", f"{{{lists}}}"))
    nested = '{"info": {"images": 1}, "images": [], "categories": [], "annotations": []}'
    assert CocoFile.read(write(tmp_path / "b.json", nested)).images == []
    labels = '{"imagePath": "a.jpg", "imageHeight": 12, "imageWidth": 16, "shapes": [], "shapes": []}'
    write(tmp_path / "labelme/a.json", labels)
    with pytest.raises(InputError, match='"shapes" is there twice'):
        read("labelme", tmp_path / "labelme")


def test_a_yolo_set_without_classes_reads_back(tmp_path: Path) -> None:
    file = CocoFile()
    file.add_image("a.jpg", (12, 16))
    for kind in ("yolo-det", "yolo-seg"):
        assert export(file, kind, tmp_path / kind).pictures == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda row: row.update(file_name="../secret.png"), "lies outside"),
        (lambda row: row.update(file_name="link.png"), "a link leads"),
        (lambda row: row.update(file_name=None), "the file_name of its PNG"),
        (lambda row: row.update(image_id=[1]), "not among those"),
        (lambda row: row.update(segments_info=None), "expected segments_info"),
        (lambda row: row["segments_info"][0].update(id=[3]), "a whole number as its id"),
        (lambda row: row["segments_info"][0].pop("category_id"), "of an unknown category"),
    ],
)
def test_panoptic_maps_stay_in_their_folder(change: Callable[[Any], None], why: str, tmp_path: Path) -> None:
    file = PanopticFile.start(tmp_path / "val.json", {1: "dog"})
    file.add("a.jpg", np.full((2, 3), 3), [{"id": 3, "category_id": 1}])
    PIL.Image.open(tmp_path / "val/a.png").save(tmp_path / "secret.png")
    (tmp_path / "val/link.png").symlink_to(tmp_path / "secret.png")
    change(file.annotations[0])
    file.write()
    with pytest.raises(InputError, match=why):
        again = PanopticFile.read(file.path)
        again.read_segments(again.annotations[0])
