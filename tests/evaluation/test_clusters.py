"""Cluster and name: planted answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import annofree
from annofree.errors import InputError
from annofree.evaluation.crop_features import encode_dino_crops, encode_predictions
from annofree.evaluation.metrics.clusters import cluster_features, find_true_classes, match_clusters, name_clusters
from annofree.evaluation.metrics.instance import evaluate_instances
from annofree.evaluation.score_instances import InstanceEvaluation
from annofree.formats.coco import CocoFile
from annofree.methods.components import Models
from annofree.structures import FloatArray, Image
from annofree.testing.fakes import FakeClip, FakeDino
from annofree.testing.paper_world import COLORS

NAMES = ("apple", "car", "tree")


def plant(folder: Path) -> tuple[CocoFile, list[dict[str, object]]]:
    """Four images with a square of each class, each found in place, all called object."""
    truth = CocoFile.with_categories({10 * (k + 1): name for k, name in enumerate(NAMES)})
    for number in range(4):
        pixels = np.full((48, 96, 3), 128, np.uint8)
        image = truth.add_image(f"{number}.png", (48, 96))
        for k, name in enumerate(NAMES):
            x, y = 32 * k, 8 * (number % 2)
            pixels[y : y + 24, x : x + 24] = COLORS[name][0]
            ring = [[x, y, x + 24, y, x + 24, y + 24, x, y + 24]]
            row = {"image_id": image, "category_id": 10 * (k + 1), "bbox": [x, y, 24, 24], "area": 576, "iscrowd": 0}
            truth.add_annotations([{**row, "segmentation": ring}])
        PIL.Image.fromarray(pixels).save(folder / f"{number}.png")
    return truth, [{**row, "category_id": 1, "score": 0.9} for row in truth.annotations]


def test_clusters_that_are_classes_get_their_names(tmp_path: Path) -> None:
    truth, rows = plant(tmp_path)
    features = torch.eye(3)[[k % 3 for k in range(12)]] + 0.01 * torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
    features[4] = torch.tensor([1.0, 0.0, 0.0])  # a car that looks like an apple
    named, clusters = name_clusters(truth, rows, features)
    assert [row["category_id"] for row in named] == [10, 20, 30, 10, 10, 30, *(10, 20, 30) * 2]
    assert sorted(clusters.names) == sorted(NAMES) and sorted(clusters.sizes) == [3, 4, 5]
    assert (clusters.overlapping, clusters.matched) == (12, 11) and "the truth was used" in clusters.note
    agnostic, aware = (evaluate_instances(truth, named, view=view).ap for view in ("class-agnostic", "class-aware"))
    assert agnostic == pytest.approx(1.0) and aware is not None and 0.8 < aware < 1


def test_what_overlaps_nothing_has_no_class_and_crowds_do_not_count(tmp_path: Path) -> None:
    truth, rows = plant(tmp_path)
    truth.annotations[0]["iscrowd"] = 1
    rows[2]["bbox"] = [0, 40, 4, 4]
    rows[4]["bbox"] = [60, 8, 30, 24]  # more of the tree than of the car
    assert find_true_classes(truth, rows)[:6] == [None, 20, None, 10, 30, 30]


def test_classes_are_matched_one_to_one() -> None:
    """The second cluster holds more of class 7 than of 9, but the first needs it more."""
    assert match_clusters(np.array([0, 0, 0, 1, 1, 1]), [7, 7, 7, 7, 7, 9], [7, 9]) == {0: 7, 1: 9}
    assert match_clusters(np.zeros(0, np.int64), [], [7, 9]) == {0: 7, 1: 9}


def test_the_same_seed_gives_the_same_clusters() -> None:
    features = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    assert (cluster_features(features, 5, 3) == cluster_features(features, 5, 3)).all()
    assert len(cluster_features(torch.zeros(0, 1), 5)) == 0


@pytest.mark.parametrize("features", [torch.zeros(2, 3), torch.zeros(12), torch.full((12, 3), torch.nan)])
def test_features_that_cannot_be_are_refused(tmp_path: Path, features: torch.Tensor) -> None:
    with pytest.raises(InputError, match="expected finite features"):
        name_clusters(*plant(tmp_path), features)


def test_features_come_in_the_order_of_predictions(tmp_path: Path) -> None:
    truth, rows = plant(tmp_path)
    shuffled = rows[::-1]

    def encode(image: Image, boxes: FloatArray) -> torch.Tensor:
        return torch.tensor([[int(image.id[0]), float(box[0])] for box in boxes])

    found = encode_predictions(truth, shuffled, lambda name: Image(np.zeros((48, 96, 3), np.uint8), name), encode)
    assert found.tolist() == [[row["image_id"] - 1, row["bbox"][0]] for row in shuffled]  # type: ignore[index, operator]


def test_a_box_beyond_the_image_or_of_no_size_is_seen() -> None:
    image = Image(np.zeros((20, 30, 3), np.uint8), "a")
    boxes = np.array([[-5, -5, 50, 50], [30, 20, 30, 20]], np.float32)
    assert encode_dino_crops(FakeDino(), image, boxes).shape[0] == 2


@pytest.mark.parametrize("cluster", ["clip", "dino"])
def test_predictions_without_names_are_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: str) -> None:
    truth, rows = plant(tmp_path)
    truth.write(tmp_path / "truth.json")
    said = CocoFile.with_categories({1: "object"})
    said.images, said.annotations = truth.images, rows
    said.write(tmp_path / "said.json")
    monkeypatch.setattr(Models, "clip", FakeClip())
    monkeypatch.setattr(Models, "dino", FakeDino())
    monkeypatch.setattr(FakeClip, "provenance", {}, raising=False)
    places = {"predictions": tmp_path / "said.json", "pictures": tmp_path, "out": tmp_path / "scores.json"}
    done = annofree.evaluate(tmp_path / "truth.json", cluster=cluster, **places)  # type: ignore[arg-type]
    assert isinstance(done.result, InstanceEvaluation)
    assert done.result.scores["all"]["class-aware masks"].ap == pytest.approx(1.0)
    assert "the truth was used" in done.notes[0] and "the truth was used" in (tmp_path / "scores.json").read_text()
    with pytest.raises(InputError, match="with --cluster"):
        annofree.evaluate(tmp_path / "truth.json", predictions=tmp_path / "said.json", cluster=cluster)
    with pytest.raises(InputError, match="unknown source of features"):
        annofree.evaluate(tmp_path / "truth.json", cluster="sift", **places)  # type: ignore[arg-type]
