"""Protocols without names: all categories are one, and one name is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from annofree.evaluation.protocols.instance import find_instance_protocol
from annofree.formats.coco import CocoFile
from annofree.methods.class_agnostic.discovery import Discovery
from annofree.testing.fakes import FakeDino


def test_what_is_found_without_names_is_scored_without_names(tmp_path: Path) -> None:
    pixels = np.full((64, 64, 3), 128, np.uint8)
    pixels[8:32, 8:40] = (200, 30, 30)
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    truth = CocoFile.with_categories({3: "cat", 7: "dog"})
    image = truth.add_image("a.png", (64, 64))
    corners = [8, 8, 40, 8, 40, 32, 8, 32]
    row = {"image_id": image, "category_id": 7, "bbox": [8, 8, 32, 24], "area": 768, "segmentation": [corners], "iscrowd": 0}
    truth.add_annotations([row])
    truth.write(tmp_path / "truth.json")
    rules, places = find_instance_protocol("coco-agnostic"), {"truth": tmp_path / "truth.json", "images": tmp_path}
    merged = rules.read_truth(places)
    assert [c["name"] for c in merged.categories] == ["object"] and merged.annotations[0]["category_id"] == 1
    found = rules.predict(Discovery(FakeDino(), "tokencut"), merged, places, lambda done, total: None)
    scores = rules.compute_scores(merged, found)
    assert scores["class-aware"].ap == scores["class-agnostic"].ap == pytest.approx(1.0)
