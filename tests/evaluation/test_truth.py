"""Truths and predictions whose ids, names and numbers are written otherwise than annofree writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import annofree
from annofree.errors import InputError

SQUARE = [[5, 5, 13, 5, 13, 13, 5, 13]]


def write(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data), encoding="utf-16")
    return path


def truth(image: Any = 1, category: Any = 1, name: str = "dog", **more: Any) -> dict[str, Any]:
    named = ((9, "b.jpg"), (image, "sub/é.jpg"))
    row = {"id": 1, "image_id": image, "category_id": category, "bbox": [5, 5, 8, 8], "area": 64, "segmentation": SQUARE}
    return {
        "images": [{"id": id_, "file_name": name_, "height": 30, "width": 40} for id_, name_ in named],
        "categories": [{"id": category, "name": name}],
        "annotations": [row | more],
    }


@pytest.mark.parametrize(("image", "category"), [("x1", 1), ("1", "1"), (1.0, "a"), ("2", 1.5)])
@pytest.mark.parametrize("bare", [True, False])
def test_ids_of_any_type_and_names_with_blanks(image: Any, category: Any, bare: bool, tmp_path: Path) -> None:
    said = truth(image, category, score=0.9)
    if not bare:
        said["images"][1]["file_name"] = "sub\\e\u0301.jpg"
    files = [
        write(tmp_path / "truth.json", truth(image, category, "dog ", iscrowd=None, area=None)),
        write(tmp_path / "said.json", said["annotations"] if bare else said),
    ]
    result: Any = annofree.evaluate(files[0], predictions=files[1]).result
    scores = next(score for score in result.scores["all"].values() if hasattr(score, "ap"))
    assert (scores.ap, scores.n_truth, scores.n_predictions) == (1, 1, 1)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"image_id": 5}, "image_id 5, which is not among its 2 images"),
        ({"area": float("nan")}, "area of annotation 0"),
        ({"iscrowd": 1e308}, "iscrowd of annotation 0 of the truth as 0 or 1"),
        ({"segmentation": {"size": [30, 40], "counts": "5"}}, "add up to 30 x 40 pixels in annotation 0 of the truth, got 5"),
        ({"segmentation": {"size": [30, 40], "counts": "b'5'"}}, "run lengths in annotation 0"),
    ],
)
def test_odd_truths_are_refused_in_a_line(more: dict[str, Any], why: str, tmp_path: Path) -> None:
    said = write(tmp_path / "said.json", [])
    with pytest.raises(InputError, match=why):
        annofree.evaluate(write(tmp_path / "truth.json", truth(**more)), predictions=said)


def test_more_instances_than_count_are_noted(tmp_path: Path) -> None:
    file = truth()
    file["annotations"] = [{**file["annotations"][0], "id": k} for k in range(3)]
    said = write(tmp_path / "said.json", [{**file["annotations"][0], "score": 0.9}])
    done = annofree.evaluate(write(tmp_path / "truth.json", file), predictions=said, max_detections=2)
    assert any("more than 2 true instances, up to 3" in note for note in done.notes)
