"""COCO-20K by its list, the split into seen and unseen classes, and VOC's objects from its maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from annofree.datasets.benchmarks.coco20k import select_coco20k
from annofree.datasets.benchmarks.unseen import SEEN_65, UNSEEN_15, keep_categories
from annofree.datasets.benchmarks.voc_objects import read_voc_objects
from annofree.datasets.names import COCO_NAMES, VOC_NAMES
from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.ops.rle import decode_rle


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    file = CocoFile.with_categories({1: "person", 17: "cat"})
    for n in range(4):
        id_ = file.add_image(f"COCO_train2014_{n}.jpg", (4, 6))
        file.add_annotations([{"image_id": id_, "category_id": 17, "iscrowd": n % 2, "bbox": [0, 0, 2, 2]}])
    file.write(tmp_path / "truth.json")
    return tmp_path / "truth.json"


def test_the_pictures_of_a_list(truth: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("train2014/COCO_train2014_3.jpg\n\nCOCO_train2014_0.jpg\n")
    chosen = select_coco20k(truth, tmp_path / "list.txt")
    assert [row["file_name"] for row in chosen.images] == ["COCO_train2014_0.jpg", "COCO_train2014_3.jpg"]
    assert [(row["image_id"], row["iscrowd"]) for row in chosen.annotations] == [(1, 0), (4, 1)]
    assert [row["name"] for row in chosen.categories] == ["person", "cat"]


def test_lists_that_do_not_fit(truth: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(InputError, match=r"expected file names in .*empty\.txt, got none"):
        select_coco20k(truth, tmp_path / "empty.txt")
    (tmp_path / "other.txt").write_text("COCO_train2014_0.jpg\nCOCO_val2014_9.jpg\n")
    with pytest.raises(InputError, match=r"expected the 2 images .* but 1 are not there, COCO_val2014_9\.jpg among them"):
        select_coco20k(truth, tmp_path / "other.txt")
    with pytest.raises(InputError, match="expected a list at"):
        select_coco20k(truth, tmp_path / "none.txt")


def test_seen_and_unseen_make_coco() -> None:
    assert (len(UNSEEN_15), len(SEEN_65)) == (15, 65)
    assert {*UNSEEN_15, *SEEN_65} == set(COCO_NAMES)


def test_only_some_categories(truth: Path) -> None:
    file = CocoFile.read(truth)
    assert (len(keep_categories(file, ["cat"]).annotations), len(keep_categories(file, ["person"]).annotations)) == (4, 0)
    assert keep_categories(file, ["person"]).images == file.images
    with pytest.raises(InputError, match=r"unknown category 'bat'; did you mean 'cat'\?"):
        keep_categories(file, ["bat"])


@pytest.fixture
def voc_folder(tmp_path: Path) -> Path:
    root = tmp_path / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "trainval.txt").write_text("a\nb\n")
    for id_ in "ab":
        PIL.Image.new("RGB", (8, 6)).save(root / "JPEGImages" / f"{id_}.jpg")
    objects = np.zeros((6, 8), np.uint8)
    objects[:3, :3], objects[2:5, 5:] = 1, 2
    objects[3, :3] = 255
    classes = np.choose(objects.clip(0, 3), [0, 12, 20, 255]).astype(np.uint8)
    empty = np.zeros((6, 8), np.uint8)
    for id_, pair in {"a": (objects, classes), "b": (empty, empty)}.items():
        for folder, values in zip(("SegmentationObject", "SegmentationClass"), pair, strict=True):
            PIL.Image.fromarray(values).save(root / folder / f"{id_}.png")
    return root


def test_objects_of_voc(voc_folder: Path) -> None:
    file = read_voc_objects(voc_folder, "trainval")
    assert [row["name"] for row in file.categories] == list(VOC_NAMES)
    assert [(row["file_name"], row["height"], row["width"]) for row in file.images] == [("a.jpg", 6, 8), ("b.jpg", 6, 8)]
    dog, tv = file.annotations
    assert [(row["image_id"], row["category_id"], row["area"], row["bbox"]) for row in (dog, tv)] == [
        (1, 12, 9, [0, 0, 3, 3]),
        (1, 20, 9, [5, 2, 3, 3]),
    ]
    mask = decode_rle(dog["segmentation"])
    assert mask.sum() == 9 and mask[:3, :3].all()  # without the border


def test_maps_of_voc_that_do_not_agree(voc_folder: Path) -> None:
    PIL.Image.fromarray(np.full((6, 8), 7, np.uint8)).save(voc_folder / "SegmentationObject" / "b.png")
    with pytest.raises(InputError, match=r"expected one class of 1 to 20 in object 7 of b, got \[0\]"):
        read_voc_objects(voc_folder, "trainval")
    PIL.Image.fromarray(np.zeros((8, 6), np.uint8)).save(voc_folder / "SegmentationObject" / "b.png")
    with pytest.raises(InputError, match=r"expected two maps of one size for b, got \(8, 6\) and \(6, 8\)"):
        read_voc_objects(voc_folder, "trainval")
