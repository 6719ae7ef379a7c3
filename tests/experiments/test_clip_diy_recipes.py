"""CLIP-DIY's tables: whole, on protocols that are there, with the figures that the paper states; their miniature too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from annofree.evaluation.metrics.semantic import SemanticScorer
from annofree.experiments.measure import Recipe
from annofree.experiments.papers import PublishedRecipe, _of_labels
from annofree.methods.build import OPENERS, MethodSpec, change_settings
from annofree.methods.registry import find_method

ROOT = Path(__file__).parents[2] / "recipes"
PAPERS = sorted((ROOT / "clip_diy").glob("*.toml"))


def test_both_data_sets_are_there() -> None:
    assert [path.stem for path in PAPERS] == ["coco-object", "voc21"]


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_it_is_whole(path: Path) -> None:
    for run in PublishedRecipe.read(path).runs:
        entry = find_method(run.method, run.variant)
        change_settings(entry.variants[run.variant], run.settings)
        run.check_steps("semantic")
        assert (run.expected or run.quoted) and (run.note or not run.quoted)
        roles = MethodSpec(run.method, objectness=run.objectness).entry.list_roles(run.objectness)
        assert bool(run.weights) == any(role in OPENERS for role in roles) == (run.objectness == "cutler")


def test_the_classes_of_table_5_average_to_what_is_said() -> None:
    (run,) = (run for run in PublishedRecipe.read(ROOT / "clip_diy" / "voc21.toml").runs if run.name == "classes")
    assert len(run.quoted) == 21 and round(float(np.mean([*run.quoted.values()])), 1) == 59.6


def test_the_iou_of_a_class_is_a_figure_where_it_is_wanted() -> None:
    scorer = SemanticScorer(("background", "cat", "dog"), background=0)
    scorer.add(np.array([[0, 1], [2, 2]]), np.array([[0, 1], [1, 2]]))
    assert "all IoU of cat" not in _of_labels(scorer.compute_scores())
    figures = _of_labels(scorer.compute_scores(), ["all IoU of cat", "all mIoU"])
    assert figures["all IoU of cat"] == 50.0 and "all IoU of dog" not in figures


def test_the_miniature_has_the_rows_of_table_3() -> None:
    scales = [tuple(run.settings.get("scales", (0, 1, 2))) for run in Recipe.read(ROOT / "emoji" / "semantic-scales.toml").runs]
    assert scales == [(0,), (0, 1), (0, 1, 2), (0, 1, 2, 3), (0, 1, 2, 3, 4), (1, 2, 3)]
