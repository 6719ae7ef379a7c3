"""The calls that train, from Python: what they take, what they give back, and that wrong ones are refused without torch."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from tests.support import detector_training

from annofree.errors import InputError, MissingError
from annofree.formats.coco import CocoFile
from annofree.io.callbacks import Callbacks
from annofree.pipelines.training.finetune import finetune
from annofree.pipelines.training.pseudo_label import pseudo_label
from annofree.pipelines.training.train_detector import train_detector
from annofree.pipelines.training.train_found import train_found
from annofree.pipelines.training.train_selfmask import train_selfmask
from annofree.pipelines.training.train_tiny import train_tiny
from annofree.pipelines.training.training_device import choose_training_device
from annofree.structures import Detections
from annofree.training.selfmask import train as selfmask_room


@pytest.fixture
def home(tmp_path: Path) -> Path:
    detector_training.write_labels(tmp_path)
    (tmp_path / "recipe.toml").write_text(detector_training.TOML)
    return tmp_path


def test_fields_by_name_override_the_recipe_or_make_it(home: Path) -> None:
    said: list[str] = []
    seen: list[tuple[int, int]] = []
    callbacks = Callbacks(on_note=said.append, on_progress=lambda *at: seen.append(at))
    model = train_detector(str(home / "recipe.toml"), out=str(home / "a"), steps=3, seed=5, images=None, callbacks=callbacks)
    assert model.folder == home / "a" and model.card.is_file() and model.figures["step"] == 3 and not model.failed
    assert seen == [(n, 3) for n in range(4)] and len(said) == 1
    recipe = json.loads((home / "a" / "training.json").read_text())["recipe"]
    assert (recipe["seed"], recipe["steps"], recipe["decay_at"]) == (5, 3, [2])

    fields = {k: recipe[k] for k in ("batch", "lr", "seed", "network", "scenes", "world", "warmup", "decay_at")}
    fields |= {"log_every": 2, "checkpoint_every": 3, "steps": None}
    again = train_detector(labels=home / "labels.json", images=home / "pictures", out=home / "b", **fields | {"steps": 3})
    weights = [(home / name / "model.safetensors").stat().st_size for name in "ab"]
    assert again.figures["step"] == 3 and weights[0] == weights[1]

    with pytest.raises(InputError, match="unknown field of the recipe 'learning_rate'"):
        train_detector(home / "recipe.toml", learning_rate=0.1)
    with pytest.raises(InputError, match="expected labels in the recipe, got none"):
        train_detector(out=home / "c")
    with pytest.raises(InputError, match="expected a device such as auto, cpu or cuda, got 'moon'"):
        train_detector(home / "recipe.toml", device="moon")


def test_a_folder_of_another_training_is_refused(home: Path) -> None:
    train_detector(home / "recipe.toml", steps=1)
    with pytest.raises(InputError, match=r"holds a run with other settings \(seed was 0, now 1\)"):
        train_detector(home / "recipe.toml", steps=1, seed=1)


def test_finetuning_takes_fields_of_the_recipe(home: Path) -> None:
    start = train_detector(home / "recipe.toml", steps=1)
    given: dict[str, Any] = {"images": home / "pictures", "steps": 1, "batch": 2}
    tuned = finetune(start.folder, home / "labels.json", home / "tuned", fraction=0.4, agnostic=True, **given)
    assert tuned.folder == home / "tuned" and tuned.figures["step"] == 1
    assert json.loads((home / "tuned" / "training.json").read_text())["recipe"]["agnostic"] is True
    with pytest.raises(InputError, match="unknown field of the recipe 'agnostics'; did you mean 'agnostic'"):
        finetune(start.folder, home / "labels.json", home / "x", agnostics=True)
    with pytest.raises(MissingError, match="expected a detector's folder"):
        finetune(home / "pictures", home / "labels.json", home / "x")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of one image with two dogs and a cat."""
    masks = np.zeros((3, 30, 40), bool)
    masks[0, 2:20, 2:20] = masks[1, 22:30, 2:20] = masks[2, 2:20, 25:40] = True
    file = CocoFile.with_categories({1: "dog", 2: "cat"})
    file.add_annotations(
        Detections.from_masks(masks, [0, 0, 1], [0.9, 0.2, 0.5], ["dog", "cat"]).to_coco(file.add_image("a.png", (30, 40)))
    )
    folder = tmp_path / "run"
    (folder / "shards").mkdir(parents=True)
    file.write(folder / "annotations.json")
    (folder / "run.json").write_text("{}")
    (folder / "shards" / "settings.json").write_text(json.dumps({"asked": {"root": str(tmp_path)}}))
    PIL.Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    return folder


@pytest.mark.parametrize("scores", [0.4, {"dog": 0.4}, ["0.4"], ["0.1", "dog=0.4"]])
def test_scores_are_a_number_numbers_by_class_or_texts(run: Path, tmp_path: Path, scores: Any) -> None:
    info = pseudo_label(run, tmp_path / "labels", min_score=scores, sheet=0, inside=1.0)
    assert info["counts"]["score"] == 1 and info["counts"]["kept"] == 2
    assert info == json.loads((tmp_path / "labels" / "labels.json").read_text())["info"]


def test_a_second_round_and_wrong_rules(run: Path, tmp_path: Path) -> None:
    pseudo_label(run, tmp_path / "1", agnostic=True, sheet=0)
    info = pseudo_label(run, tmp_path / "2", merge=tmp_path / "1", merge_iou=0.7, per_class=1, sheet=0)
    assert info["rules"]["earlier"] == 0.7 and info["counts"]["earlier"] + info["counts"]["earlier_gone"] == 3
    for wrong, message in (
        ({"insider": 0.5}, "unknown rule of labels 'insider'; did you mean 'inside'"),
        ({"most": "few"}, "expected most of the rules of labels as a whole number"),
        ({"within": 2.0}, "expected shares from 0 to 1"),
        ({"min_score": 1.5}, "expected a number from 0 to 1"),
    ):
        with pytest.raises(InputError, match=message):
            pseudo_label(run, tmp_path / "3", **wrong)


def test_selfmask_tells_of_its_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 2}
    monkeypatch.setattr(selfmask_room, "TINY", replace(selfmask_room.TINY, model_args=small, layers=2, heads=2, ffn=32))
    (tmp_path / "photos").mkdir()
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 90, (40, 48, 3), np.uint8)
        pixels[10:30, 8 + seed : 28] = 220
        PIL.Image.fromarray(pixels).save(tmp_path / "photos" / f"{seed}.png")
    (tmp_path / "photos" / "torn.png").write_bytes(b"no image")
    heard: list[Any] = []
    callbacks = Callbacks(
        on_failure=lambda name, why: heard.append(name),
        on_progress=lambda *at: heard.append(at),
        on_stage=lambda what, loading: heard.append(what),
    )
    model = train_selfmask(
        tmp_path / "out", images=str(tmp_path / "photos"), sources=["colour"], steps=1, batch=1, side=32, cells=400,
        callbacks=callbacks,
    )  # fmt: skip
    assert heard == [(0, 3), (1, 3), (2, 3), (3, 3), "torn.png", "steps", (0, 1), (1, 1)]
    assert list(model.failed) == ["torn.png"] and model.figures["training step"] == 1


def test_cuda_is_left_to_the_processes_of_torchrun() -> None:
    assert choose_training_device("cpu") == "cpu" and choose_training_device("auto") in ("cpu", "cuda")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"workers": -1}, "expected workers of at least 0, got -1"),
        ({"minutes": -3}, "expected minutes from 0.01 to 525600, got -3"),
        ({"minutes": math.inf, "paced": True}, "expected minutes from 0.01 to 525600, got inf"),
        ({"minutes": math.nan, "paced": True}, "expected minutes from 0.01 to 525600, got nan"),
        ({"paced": True}, "expected minutes for a learning rate that falls with them, got none; pass --minutes"),
        ({"samples": 0}, "expected samples of at least 1, got 0"),
        ({"pool": 0}, "expected pool of at least 8, got 0"),
        ({"seed": "a"}, "expected seed as a whole number of at least 0, got 'a'"),
    ],
)
def test_numbers_of_a_tiny_training_are_checked_before_anything_is_written(
    tmp_path: Path, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train_tiny("dino", tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("asked", [{"minutes": 0}, {"samples": 0}, {"seed": -1}])
def test_numbers_of_a_found_training_are_checked(tmp_path: Path, asked: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"expected {next(iter(asked))} "):
        train_found("tiny-dino", tmp_path / "out", **asked)


WRONG = """
import sys
from annofree.errors import AnnofreeError
from annofree.pipelines.training import (
    export_model, finetune, pseudo_label, train_detector, train_found, train_selfmask, train_tiny, train_zutis
)

calls = [
    lambda: train_detector.train_detector("none.toml"),
    lambda: train_zutis.train_zutis("none.toml"),
    lambda: train_selfmask.train_selfmask("out"),
    lambda: train_tiny.train_tiny("clop", "out"),
    lambda: train_found.train_found("dino", "out", refine="bilateral"),
    lambda: finetune.finetune("detector", "labels.json", "out", fraction=2),
    lambda: pseudo_label.pseudo_label("none", "out"),
    lambda: export_model.export_model("detector", "model.pt"),
]
for call in calls:
    try:
        call()
    except AnnofreeError:
        continue
    sys.exit("not refused")
print([name for name in ("torch", "numpy", "transformers") if name in sys.modules])
"""


def test_wrong_calls_are_refused_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WRONG], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == "[]\n"
