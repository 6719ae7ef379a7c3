"""CutLER's and MaskDistill's recipes: each can be read, and says what the papers say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
from tests.support.recipe_kinds import is_published

from annofree.apps.cli import app
from annofree.detectors.config import DetectorConfig
from annofree.experiments.measure import Recipe
from annofree.experiments.papers import PublishedRecipe
from annofree.methods.build import change_settings
from annofree.methods.class_agnostic.maskcut import VARIANTS
from annofree.methods.registry import find_method
from annofree.pipelines.training.stages import read_making
from annofree.training.detector.recipe import DetectorRecipe
from annofree.training.pseudo_labels.rules import LabelRules

ROOT = Path(__file__).parents[2] / "recipes"
FILES = [*sorted((ROOT / "cutler").glob("*.toml")), *sorted((ROOT / "maskdistill").glob("*.toml"))]
TRAININGS = [path for path in FILES if not is_published(path)]
TABLES = [path for path in FILES if is_published(path)]


def read(name: str) -> DetectorRecipe:
    return DetectorRecipe.read(ROOT / "cutler" / f"{name}.toml")


def test_all_are_there() -> None:
    assert [path.stem for path in TRAININGS] == ["folder-next", "folder", "imagenet-next", "imagenet", "detector"]
    assert [path.stem for path in TABLES] == ["table-coco", "coco-20k"]


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_each_makes_a_network_without_names(path: Path) -> None:
    recipe = DetectorRecipe.read(path)
    config = DetectorConfig.of({"kind": "cascade", **recipe.network, "names": ("object",)})
    assert recipe.agnostic and config.agnostic and all(at < recipe.steps for at in recipe.decay_at)


def test_imagenet_is_the_papers() -> None:
    first, later = read("imagenet"), read("imagenet-next")
    assert (first.steps, first.batch, first.weight_decay, later.steps, later.lr) == (160_000, 16, 5e-5, 80_000, 0.01)
    assert [first.schedule(first.lr, step, first.steps) for step in (1000, 80_000)] == pytest.approx([0.005, 0.001])
    assert (first.network["drop_loss"], later.network["drop_loss"]) == (0.01, 0.0)
    scenes = first.build_scene_settings()
    assert (tuple(scenes.paste_scale), scenes.copy_paste, scenes.most_hidden) == ((0.3, 1.0), 1.0, 0.5)
    cut = VARIANTS["default"]
    assert (cut.side, cut.cuts.tau, cut.cuts.masks, cut.agree) == (480, 0.15, 3, 0.5) and cut.crf is not None


def test_a_later_round_changes_what_it_says_of_the_network_before() -> None:
    for name in ("imagenet", "folder"):
        recipe = read(f"{name}-next")
        assert Path(recipe.initial) == ROOT / "cutler" / "runs" / name == read(name).out
        assert set(recipe.network) == {"drop_loss", "rpn_nms"} | ({"rpn_after"} if name == "imagenet" else set())


def commands(path: Path) -> list[list[str]]:
    text = path.read_text(encoding="utf-8").replace("\\\n#", " ").replace('"""', "")
    return [shlex.split(line, comments=True)[1:] for line in re.findall(r"^(?:#\s+)?(annofree .*)$", text, re.MULTILINE)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_commands_of_a_head_are_understood(path: Path) -> None:
    for words in commands(path):
        command: Any = typer.main.get_command(app)
        context = None
        while hasattr(command, "resolve_command"):
            context = command.make_context(words[0], list(words), parent=context)
            _, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
        command.make_context(words[0] if words else "", list(words), parent=context)


def test_heads_merge_by_the_papers_rule() -> None:
    (merged,) = [words for words in commands(ROOT / "cutler" / "imagenet-next.toml") if words[0] == "pseudo-label"]
    for option, value in (
        ("--merge-iou", "0.5"),
        ("--most", "30"),
        ("--min-score", "0.7"),
        ("--within", "1"),
        ("--inside", "1"),
    ):
        assert merged[merged.index(option) + 1] == value
    assert LabelRules().earlier == 0.5


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_each_table_runs_what_there_is(path: Path) -> None:
    recipe = PublishedRecipe.read(path)
    for run in recipe.runs:
        change_settings(find_method(run.method, run.variant).variants[run.variant], run.settings)
        assert run.quoted and run.note and run.protocol.endswith("-agnostic")
        assert bool(run.weights) == (run.method == "detector")


def test_the_miniature_has_two_rounds_of_the_papers_kind() -> None:
    recipe = Recipe.read(ROOT / "emoji" / "cutler.toml")
    making = read_making(recipe.make)
    assert len(making.rounds) == 2 and making.rounds[1]["rules"]["most"] == 30  # type: ignore[union-attr]
    assert [run.name for run in recipe.runs] == ["MaskCut, the first teacher", "round 1", "round 2"]
