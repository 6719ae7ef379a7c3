"""The paper's recipes: each can be read, and says what the paper says."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.recipe_kinds import is_published

from annofree.datasets.benchmarks.coco_ovd import BASE_48, NOVEL_17
from annofree.detectors.config import DetectorConfig
from annofree.experiments.papers import PublishedRecipe
from annofree.methods.build import change_settings
from annofree.methods.registry import find_method
from annofree.training.detector.recipe import DetectorRecipe
from annofree.training.detector.tuning_schedule import SCHEDULES

ROOT = Path(__file__).parents[2] / "recipes" / "zip"
TABLES = sorted(path for path in ROOT.glob("*.toml") if is_published(path))
TRAININGS = sorted(path for path in ROOT.glob("*.toml") if not is_published(path))


def read(name: str) -> DetectorRecipe:
    return DetectorRecipe.read(ROOT / f"{name}.toml")


def test_all_are_there() -> None:
    assert [path.stem for path in TABLES] == ["table-coco", "table-ovd", "table-sam", "table-speed", "table-voc"]
    assert {path.stem for path in TRAININGS} == {
        *("self-training", "cutler-released-first", "cutler-released-next", "ovd-48-17"),
        *(f"label-efficient-{share}" for share in (1, 2, 5, 10, 20, 30)),
        *("voc-mask-rcnn", "voc-cascade", "voc-cascade-r101", "voc-mask2former"),
    }


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_each_can_be_read_and_makes_a_network(path: Path) -> None:
    recipe = DetectorRecipe.read(path)
    config = DetectorConfig.of({"kind": "cascade", **recipe.network, "names": recipe.names or ("object",)})
    assert recipe.out == ROOT / "runs" / path.stem and recipe.batch == 16 and config.side == 800
    assert all(at < recipe.steps for at in recipe.decay_at)


def test_self_training_is_the_papers() -> None:
    recipe = read("self-training")
    assert (recipe.steps, recipe.batch, recipe.momentum, recipe.weight_decay) == (160_000, 16, 0.9, 5e-5)
    assert [recipe.schedule(recipe.lr, step, recipe.steps) for step in (0, 1000, 80_000)] == pytest.approx([5e-6, 0.005, 0.001])
    scenes = recipe.build_scene_settings()
    assert tuple(scenes.paste_scale) == (0.3, 1.0) and max(scenes.sides) == 1024 and scenes.copy_paste == 1
    assert recipe.network["backbone"] == "resnet50" and "dino" in recipe.initial


def test_what_was_released_differs_where_it_is_said_to() -> None:
    first, later = read("cutler-released-first"), read("cutler-released-next")
    assert first.schedule(first.lr, 80_000, first.steps) == pytest.approx(0.0002)
    assert later.schedule(later.lr, 79_999, later.steps) == 0.005 and later.weight_decay == 1e-4
    assert first.network["drop_loss"] == 0.01 and "drop_loss" not in later.network
    assert tuple(later.build_scene_settings().paste_scale) == (0.5, 1.0)


@pytest.mark.parametrize("share", [1, 2, 5, 10, 20, 30])
def test_label_efficient_tuning_is_table_6(share: int) -> None:
    recipe, plan = read(f"label-efficient-{share}"), SCHEDULES[share / 100]
    assert (recipe.steps, recipe.decay_at, recipe.warmup) == plan
    assert (recipe.fraction, recipe.split_seed, recipe.build_scene_settings().copy_paste) == (share / 100, 42, 0.0)


def test_open_vocabulary_detection_learns_the_65_names() -> None:
    assert read("ovd-48-17").names == (*BASE_48, *NOVEL_17)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_each_table_runs_what_there_is(path: Path) -> None:
    recipe = PublishedRecipe.read(path)
    for run in recipe.runs:
        settings = find_method(run.method, run.variant).variants[run.variant]
        change_settings(settings, run.settings)
        assert run.quoted and run.note and not run.expected
        if run.weights:
            assert run.method == "detector"
            assert recipe.data[run.weights].path.removeprefix("zip/") in [p.stem for p in TRAININGS]
