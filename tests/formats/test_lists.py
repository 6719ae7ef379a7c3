"""What should be a list of objects and is not is refused by name, not gone through sign by sign."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from annofree.formats.annotations import list_images
from annofree.formats.passed_over import PassedOver
from annofree.formats.registry import read

SIZE = {"original_width": 16, "original_height": 12}
BOX = {"x": 10, "y": 10, "width": 20, "height": 20, "rectanglelabels": ["dog"]}
REGION = {"type": "rectanglelabels", "value": BOX, **SIZE}


def remark(kind: str, place: Path) -> list[str]:
    passed = PassedOver(skip_unsupported=True)
    assert not any(image.things for image in list_images(read(kind, place, None, passed)))
    return [f"{one.what}: {one.reason}" for one in passed.left_out]


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ("abc", ["files: expected shapes as a list, got 'abc'"]),
        ({"a": 1}, ["files: expected shapes as a list, got {'a': 1}"]),
        (["a", 3], ["objects: expected a shape as an object, got 'a'", "objects: expected a shape as an object, got 3"]),
        (None, []),
    ],
)
def test_shapes_of_labelme(shapes: Any, told: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"imagePath": "a.png", "imageHeight": 12, "imageWidth": 16, "shapes": shapes}))
    assert remark("labelme", tmp_path) == told


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ({"annotations": "abc"}, "expected annotations as a list, got 'abc'"),
        ({"annotations": ["abc"]}, "expected annotations as objects, got 'abc' as number 1"),
        ({"predictions": 3}, "expected predictions as a list, got 3"),
        ({"annotations": [{"result": "abc"}]}, "expected result as a list, got 'abc'"),
        ({"annotations": [{"result": [REGION, "abc"]}]}, "expected result as objects, got 'abc' as number 2"),
    ],
)
def test_answers_of_label_studio(task: dict[str, Any], told: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"data": {"image": "a.png", "width": 16, "height": 12}, **task}]))
    assert remark("label-studio", tmp_path / "a.json") == [f"tasks: {told}"]
