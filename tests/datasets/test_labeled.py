"""Labelled images from COCO files of every kind."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from annofree.datasets.labeled import Labeled, read_info
from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.ops.rle import encode_rle
from annofree.structures import Detections

SIZE = 12, 16


def mask_at(y: int, x: int, side: int = 4) -> np.ndarray[Any, np.dtype[np.bool_]]:
    mask = np.zeros(SIZE, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def row(image_id: int, category_id: int, segmentation: Any, **more: Any) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "segmentation": segmentation, "bbox": [1, 1, 2, 2], **more}


def text(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, Any]:
    return {"size": list(SIZE), "counts": encode_rle(mask)["counts"].decode("ascii")}


@pytest.fixture
def truth(tmp_path: Path) -> CocoFile:
    """Two images with things of every kind, one without; file names against the order of the file."""
    file = CocoFile.with_categories({7: "dog", 3: "cat"})
    for name in ("c.png", "a.png", "b.png"):
        file.add_image(name, SIZE)
        PIL.Image.new("RGB", (SIZE[1], SIZE[0]), "red").save(tmp_path / name)
    plain = {"size": list(SIZE), "counts": [13, 3, 192 - 16]}  # column-major: column 1, rows 1 to 3
    rows = [
        row(1, 7, text(mask_at(2, 3)), score=0.25),
        row(2, 3, [[2.0, 1.0, 8.0, 1.0, 8.0, 5.0, 2.0, 5.0]]),
        row(1, 3, plain),
        row(1, 3, plain, iscrowd=1),
        row(2, 3, []),
        row(2, 3, text(np.zeros(SIZE, bool))),
    ]
    file.add_annotations(rows)
    return file


@pytest.fixture
def labels(truth: CocoFile, tmp_path: Path) -> Path:
    truth.write(tmp_path / "truth.json")
    return tmp_path / "truth.json"


def test_masks_of_every_kind(labels: Path, tmp_path: Path) -> None:
    read = Labeled.read(labels, tmp_path)
    assert read.names == ("cat", "dog") and read.ids == ("a.png", "b.png", "c.png") and len(read) == 3
    assert read.counts.tolist() == [1, 0, 2] and read.left_out == {"crowd": 1, "no mask": 2}
    polygon, two = read.open(0), read.open(2)
    filled = np.zeros(SIZE, bool)
    filled[1:5, 2:8] = True
    assert (polygon.masks[0] == filled).all() and polygon.boxes.tolist() == [[2, 1, 8, 5]]
    assert polygon.image.shape == (*SIZE, 3) and polygon.image[0, 0].tolist() == [255, 0, 0]
    assert (two.masks[0] == mask_at(2, 3)).all() and two.class_ids.tolist() == [1, 0] and two.scores.tolist() == [0.25, 1.0]
    assert two.boxes.tolist() == [[3, 2, 7, 6], [1, 1, 2, 4]] and two.masks[1].sum() == 3


def test_a_picture_without_annotations_is_kept(labels: Path, tmp_path: Path) -> None:
    empty = Labeled.read(labels, tmp_path).open(1)
    assert empty.masks.shape == (0, *SIZE) and empty.boxes.shape == (0, 4) and empty.class_ids.dtype == np.int64


def test_agnostic(labels: Path, tmp_path: Path) -> None:
    read = Labeled.read(labels, tmp_path, agnostic=True)
    assert read.names == ("object",) and read.open(2).class_ids.tolist() == [0, 0]


def many(tmp_path: Path, numbers: list[int]) -> Path:
    file = CocoFile.with_categories({1: "dog"})
    for n in numbers:
        file.add_annotations([row(file.add_image(f"{n:03}.jpg", SIZE), 1, text(mask_at(n % 8, n % 12)))])
    file.write(tmp_path / "many.json")
    return tmp_path / "many.json"


def test_a_share_is_fixed_nested_and_of_no_order(tmp_path: Path) -> None:
    shares = [Labeled.read(many(tmp_path, list(range(200))), tmp_path, fraction=f).ids for f in (0.01, 0.05, 0.3, 1.0)]
    assert [len(s) for s in shares] == [2, 10, 60, 200] and list(shares[1]) == sorted(shares[1])
    assert all(set(few) < set(more) for few, more in pairwise(shares))
    backwards = Labeled.read(many(tmp_path, list(range(199, -1, -1))), tmp_path, fraction=0.05)
    assert backwards.ids == shares[1] and shares[0] == ("065.jpg", "116.jpg")  # of this seed for ever
    assert Labeled.read(tmp_path / "many.json", tmp_path, fraction=0.05, seed=1).ids != shares[1]
    assert (
        backwards.read_instances(3).masks[0] == mask_at(int(backwards.ids[3][:3]) % 8, int(backwards.ids[3][:3]) % 12)
    ).all()


def test_lists_in_any_order(truth: CocoFile, labels: Path, tmp_path: Path) -> None:
    parts = {"annotations": truth.annotations, "categories": truth.categories, "images": truth.images}
    (tmp_path / "turned.json").write_text(json.dumps(parts))
    usual, turned = Labeled.read(labels, tmp_path), Labeled.read(tmp_path / "turned.json", tmp_path)
    assert turned.compute_fingerprint() == usual.compute_fingerprint() and turned.counts.tolist() == usual.counts.tolist()


def test_the_fingerprint_sees_masks_names_and_shares(truth: CocoFile, labels: Path, tmp_path: Path) -> None:
    prints = [
        Labeled.read(labels, tmp_path).compute_fingerprint(),
        Labeled.read(labels, tmp_path, agnostic=True).compute_fingerprint(),
    ]
    prints.append(Labeled.read(labels, tmp_path, fraction=0.5).compute_fingerprint())
    truth.annotations[0]["segmentation"] = text(mask_at(3, 3))
    truth.write(labels)
    prints.append(Labeled.read(labels, tmp_path).compute_fingerprint())
    truth.images[0]["repeat"] = 2.0
    truth.write(labels)
    prints.append(Labeled.read(labels, tmp_path).compute_fingerprint())
    assert len(set(prints)) == 5 and Labeled.read(labels, tmp_path).repeats.tolist() == [1, 1, 2]


def test_a_folder_of_labels_says_where_its_pictures_are(truth: CocoFile, labels: Path, tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    folder.mkdir()
    truth.info = {"images": str(tmp_path), "long": "x" * (1 << 17)}
    truth.write(folder / "labels.json")
    assert len(Labeled.read(folder).open(0).masks) == 1 and read_info(folder / "labels.json") == truth.info
    with pytest.raises(InputError, match="name the images"):
        Labeled.read(labels)
    with pytest.raises(InputError, match=r"expected labels\.json in"):
        Labeled.read(tmp_path)


def test_files_that_do_not_fit(truth: CocoFile, labels: Path, tmp_path: Path) -> None:
    PIL.Image.new("RGB", SIZE).save(tmp_path / "a.png")  # height and width swapped
    with pytest.raises(InputError, match=r"expected a\.png to be of the size \(H, W\) \(12, 16\)"):
        Labeled.read(labels, tmp_path).open(0)
    with pytest.raises(InputError, match="share of the images"):
        Labeled.read(labels, tmp_path, fraction=0.0)
    with pytest.raises(InputError, match="folder of the images"):
        Labeled.read(labels, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda f: f.annotations.append(row(9, 3, [])), "is of image 9"),
        (lambda f: f.annotations.append(row(1, 9, text(mask_at(0, 0)))), "of category 9"),
        (lambda f: f.annotations.append({"image_id": 1}), "lacks 'category_id'"),
        (lambda f: f.images.append(dict(f.images[0], id=9)), "two have one file_name"),
        (lambda f: f.images.clear() or f.annotations.clear(), "expected images"),
        (lambda f: [r.pop("segmentation") for r in f.annotations], "expected masks"),
        (lambda f: f.categories.append({"id": 9, "name": "dog"}), "each category name once"),
    ],
)
def test_damaged_files(change: Any, why: str, truth: CocoFile, tmp_path: Path) -> None:
    change(truth)
    truth.write(tmp_path / "bad.json")
    with pytest.raises(InputError, match=why):
        Labeled.read(tmp_path / "bad.json", tmp_path)


def test_instances_are_detections(labels: Path, tmp_path: Path) -> None:
    found = Labeled.read(labels, tmp_path).read_instances(2)
    assert isinstance(found, Detections) and found.labels.tolist() == ["dog", "cat"] and found.areas.tolist() == [16, 3]
