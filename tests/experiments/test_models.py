"""Recipes of the bundled models."""

from __future__ import annotations

from pathlib import Path

import pytest

from annofree.errors import InputError
from annofree.experiments.models import ModelRecipe
from annofree.training.tiny.evaluate import EXAMS

RECIPES = Path(__file__).parents[2] / "recipes" / "emoji"


@pytest.mark.parametrize("model", EXAMS)
def test_each_bundled_model_has_a_recipe_whose_card_holds_its_figures(model: str) -> None:
    recipe = ModelRecipe.read(RECIPES / f"{model}.toml")
    assert recipe.model == model
    words = recipe.command.split()
    alone = words[:2] == ["annofree", "train"] and words[2] in (model, model.removeprefix("tiny-"))
    assert alone or words[:2] == ["python", "benchmarks/train_tiny_models.py"]
    assert recipe.expected


def test_a_recipe_with_another_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.toml"
    path.write_text('model = "tiny-clip"\ncolour = 3\n')
    with pytest.raises(InputError, match="recipe of a model"):
        ModelRecipe.read(path)
