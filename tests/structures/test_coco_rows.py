"""Detections that go to COCO's annotations, to supervision and to pandas, and come back."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from tests.support.detections import NAMES, SIZE, detections, some

from annofree.errors import InputError, MissingError
from annofree.structures import Detections


@given(detections())
def test_annotations_come_back(found: Detections) -> None:
    assert Detections.from_coco(found.to_coco(image_id=9), found.names, found.size) == found
    numbers = [10 * (k + 1) for k in range(len(found.names))]
    listed = [{"id": n, "name": name, "supercategory": "thing"} for n, name in zip(numbers, found.names, strict=True)]
    by_number = dict(zip(numbers, found.names, strict=True))
    for categories in (listed, by_number):
        assert Detections.from_coco(found.to_coco(9, numbers), categories, found.size) == found


def test_masks_in_every_way_that_coco_has() -> None:
    square = {"image_id": 1, "category_id": 2}
    polygon = {**square, "segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]]}
    runs = {**square, "segmentation": {"size": [6, 8], "counts": [7, 2, 4, 2, 33]}}
    found = Detections.from_coco([polygon, runs], NAMES, SIZE)
    assert np.array_equal(found.masks[0], found.masks[1]) and found.areas.tolist() == [4, 4]
    assert found.labels.tolist() == ["cat", "cat"] and found.scores.tolist() == [1, 1]
    assert found.boxes.tolist() == [[1, 1, 3, 3]] * 2
    assert len(Detections.from_coco([], NAMES, SIZE)) == 0


ROW = some(0).to_coco()[0]

WRONG: list[tuple[list[dict[str, Any]], Any, str]] = [
    ([ROW, {**ROW, "image_id": 2}], NAMES, r"of one image, got 2 images \(1, 2\)"),
    ([{**ROW, "iscrowd": 1}], NAMES, "got 1 crowds"),
    ([{**ROW, "category_id": 4}], NAMES, "a category among 1, 2, 3, got 4"),
    ([{**ROW, "segmentation": []}], NAMES, "none in annotation None"),
    ([{**ROW, "segmentation": {"size": [8, 6], "counts": "11"}}], NAMES, r"\(6, 8\) of their image, got \(8, 6\)"),
    ([{**ROW, "segmentation": {"size": [6, 8], "counts": [1, 2]}}], NAMES, "add up to 6 x 8 pixels, got 3"),
    ([{**ROW, "segmentation": {"size": [6, 8]}}], NAMES, "damaged or lacks 'counts'"),
    ([{k: v for k, v in ROW.items() if k != "category_id"}], NAMES, "damaged or lacks 'category_id'"),
    ([{**ROW, "bbox": [1, 2]}], NAMES, "damaged"),
    ([{**ROW, "bbox": [1, 2, -3, 4]}], NAMES, r"x0 <= x1 and y0 <= y1, got \[1.0, 2.0, -2.0, 6.0\] in row 0"),
    ([{**ROW, "score": 50}], NAMES, "scores from 0 to 1, got 50"),
    ([ROW], "dog", "a list of names, got the text 'dog'"),
    ([ROW], [{"name": "dog"}], "expected categories as names"),
]


@pytest.mark.parametrize(("rows", "categories", "said"), WRONG)
def test_annotations_that_are_no_detections_are_refused(rows: list[dict[str, Any]], categories: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Detections.from_coco(rows, categories, SIZE)


def test_a_category_id_for_each_name() -> None:
    with pytest.raises(InputError, match="for each of 3 names, got 1"):
        some(0).to_coco(1, [5])


# it says so when it is imported without OpenCV, which nothing here needs
@pytest.mark.filterwarnings("ignore:OpenCV:UserWarning")
@pytest.mark.parametrize("found", [some(0, 2, 1), Detections.none(SIZE, NAMES)])
def test_to_supervision(found: Detections) -> None:
    handed = found.to_supervision()
    assert len(handed) == len(found) and np.array_equal(handed.mask, found.masks) and np.array_equal(handed.xyxy, found.boxes)
    assert handed.confidence.tolist() == found.scores.tolist() and handed.class_id.tolist() == found.class_ids.tolist()
    assert handed.data["class_name"].tolist() == found.labels.tolist()


@pytest.mark.parametrize("found", [some(0, 2, 1), Detections.none(SIZE, NAMES)])
def test_to_pandas(found: Detections) -> None:
    table = found.to_pandas()
    assert list(table.columns) == ["name", "class_id", "score", "x0", "y0", "x1", "y1", "area"]
    assert table["name"].tolist() == found.labels.tolist() and table["area"].tolist() == found.areas.tolist()
    assert table[["x0", "y0", "x1", "y1"]].to_numpy().tolist() == found.boxes.tolist()


@pytest.mark.parametrize("name", ["supervision", "pandas"])
def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingError, match=f"^to_{name} needs {name}, which is not installed; pip install {name}$"):
        getattr(some(0), f"to_{name}")()
