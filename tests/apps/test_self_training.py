"""Self-training as recipes make it: how labels are counted, and all of it in the smallest size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.support.cli import Cli
from tests.support.drawing import drawing
from tests.support.recipes import recipe_head, reproduced

from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.pipelines.training.self_training import measure_labels
from annofree.pipelines.training.stages import read_making
from annofree.structures import Detections

VALIDATION = Path(__file__).parents[2] / "examples" / "validation"


def written(path: Path, things: list[tuple[int, slice, float]]) -> Path:
    """A COCO file of one image, with things of (class, columns, score)."""
    masks = np.zeros((len(things), 4, 8), bool)
    for mask, (_, columns, _) in zip(masks, things, strict=True):
        mask[:, columns] = True
    found = Detections.from_masks(masks, [k for k, _, _ in things], [s for _, _, s in things], ["dog", "cat"])
    file = CocoFile.with_categories({1: "dog", 2: "cat"})
    file.info = {"images": str(path.parent)}
    file.add_annotations(found.to_coco(file.add_image("a.jpg", (4, 8)), [1, 2]))
    file.write(path)
    return path


def test_a_label_is_right_once_and_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    truth = written(tmp_path / "truth.json", [(0, slice(0, 4), 1.0), (1, slice(4, 8), 1.0), (1, slice(0, 4), 1.0)])
    labels = [
        (0, slice(0, 4), 0.9),  # the dog
        (0, slice(0, 3), 0.8),  # the dog again: it has its label
        (0, slice(4, 8), 0.7),  # a cat's place, called dog
        (1, slice(4, 6), 0.6),  # half of a cat: an IoU of exactly 0.5 is enough
    ]
    found = measure_labels(written(tmp_path / "labels.json", labels), truth)
    assert found == {"labels": 4.0, "label precision": 50.0, "label recall": 66.67}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"what": "self_training", "scenes": 1, "train": {}}, "expected a detector to train"),
        ({"what": "self_training", "scenes": 1, "train": {"a": {}}, "tune": {"b": {}}}, "expected labelled images"),
        ({"what": "self_training", "scenes": 1, "train": {"a": {}}, "colour": 1}, "expected the settings.*colour"),
    ],
)
def test_what_cannot_be_made_is_refused(table: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_making(table)


HEAD = {"world": "emoji", "truth": f"{VALIDATION}/truth.json", "images": f"{VALIDATION}/images", "group_by": "split"}
SECONDS = "all seconds an image"
RECIPE = f"""{recipe_head(title="Self-training, smallest", tier="S2", tolerance=100, **HEAD)}
[make]
what = "self_training"
scenes = 2
labelled = 2
side = 96
rules = {{ min_score = 0.05, keep = 0.9 }}
expected = {{ "label precision" = 50.0 }}

[make.common]
initial = "tiny-clip"
steps = 2
batch = 2
warmup = 0
decay_at = [1]
scenes = {{ sides = [64], longest = 64 }}

[make.common.network]
kind = "cascade"
backbone = "clip-resnet"
layers = [2, 2, 2, 2]
width = 32
norm = "frozen"
side = 64
longest = 64
channels = 16
fc = 16
mask_convs = 1
rpn_before = [20, 20]
rpn_after = [10, 10]
roi_batch = 8

[make.train.student]

[make.tuning]
fraction = 0.5

[make.tune.tuned]
initial = "made/student"

[[run]]
name = "student"
method = "detector"
variant = "all"
parts = {{ detector = "made/student" }}

[[run]]
name = "tuned"
method = "detector"
variant = "all"
parts = {{ detector = "made/tuned" }}
"""


@drawing
def test_all_of_self_training_in_the_smallest_size(cli: Cli, tmp_path: Path) -> None:
    figures, out = reproduced(cli, RECIPE, tmp_path), tmp_path / "out"
    assert figures["what was made"]["labels"] >= 1
    assert "all AP" in figures["student"] and "all class-agnostic AP" in figures["tuned"]
    assert json.loads((out / "student" / "card.json").read_text())["name"] == "student"
    made = [path.stat().st_mtime_ns for path in sorted(out.rglob("*.safetensors"))]
    again = reproduced(cli, RECIPE, tmp_path, "--only", "student")
    assert [path.stat().st_mtime_ns for path in sorted(out.rglob("*.safetensors"))] == made
    assert again["student"] == figures["student"] | {SECONDS: again["student"][SECONDS]}


def test_a_device_that_is_not_there_is_refused_before_anything_is_made(cli: Cli, tmp_path: Path) -> None:
    recipe = tmp_path / "smallest.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    said = cli("reproduce", recipe, "--out", tmp_path / "out", "--device", "moon")
    assert said.code == 2 and "expected a device such as auto, cpu or cuda, got 'moon'" in said.err
    assert not list((tmp_path / "out").iterdir())
