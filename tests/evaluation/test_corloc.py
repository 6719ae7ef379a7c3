"""CorLoc, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from annofree.errors import InputError
from annofree.evaluation.metrics.corloc import compute_corloc
from annofree.formats.coco import CocoFile

CATEGORIES = [{"id": 1, "name": "thing"}, {"id": 2, "name": "other"}]


def build_file(boxes: dict[str, list[tuple[list[float], dict[str, Any]]]]) -> CocoFile:
    images = [{"id": k, "file_name": name, "width": 100, "height": 100} for k, name in enumerate(boxes, 1)]
    rows = [(k, box, more) for k, found in enumerate(boxes.values(), 1) for box, more in found]
    annotations = [
        {"id": i, "image_id": k, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0, **more}
        for i, (k, box, more) in enumerate(rows, 1)
    ]
    return CocoFile(images, CATEGORIES, annotations, {})


def test_the_surest_box_meets_any_thing_of_its_image() -> None:
    truth = build_file(
        {
            "met.jpg": [([0, 0, 40, 40], {}), ([60, 60, 20, 20], {"category_id": 2})],
            "missed.jpg": [([0, 0, 40, 40], {})],
            "nothing.jpg": [([0, 0, 40, 40], {})],
            "crowd.jpg": [([0, 0, 40, 40], {"iscrowd": 1})],
            "empty.jpg": [],
        }
    )
    said = build_file(
        {
            "missed.jpg": [([0, 0, 40, 40], {"score": 0.5}), ([50, 50, 40, 40], {"score": 0.9})],
            "met.jpg": [([60, 60, 20, 10], {"score": 0.9}), ([0, 0, 90, 90], {"score": 0.9})],
            "crowd.jpg": [([0, 0, 40, 40], {})],
        }
    )
    found = compute_corloc(truth, said)
    assert (found.images, found.met, found.empty) == (3, 1, 1), "half of a box is enough, and of equals the first counts"
    assert found.value == 1 / 3
    assert compute_corloc(truth, said, 0.51).met == 0


def test_without_things_there_is_no_value() -> None:
    assert compute_corloc(build_file({"a.jpg": []}), build_file({})).value is None
    with pytest.raises(InputError, match="threshold"):
        compute_corloc(build_file({}), build_file({}), 1.5)
