from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from annofree.datasets.emoji_world import find_font
from annofree.errors import InputError, MissingError
from annofree.features.weights import bundled
from annofree.training.exams import EXAMS, ModelRecipe, average_precision, examine_clip, examine_sam

RECIPES = Path(__file__).parents[2] / "recipes" / "emoji"


def has_font() -> bool:
    try:
        find_font()
    except MissingError:
        return False
    return True


needs_font = pytest.mark.skipif(not has_font(), reason="drawing emoji needs the Noto Color Emoji font")


@pytest.mark.parametrize("model", EXAMS)
def test_each_bundled_model_has_a_recipe_whose_card_holds_its_figures(model: str) -> None:
    recipe = ModelRecipe.read(RECIPES / f"{model}.toml")
    assert recipe.model == model
    assert recipe.command.startswith(f"annofree train {model} ")
    assert recipe.expected


def test_average_precision_without_a_positive_is_not_a_number() -> None:
    assert np.isnan(average_precision(np.array([0.2, 0.1]), np.array([False, False])))


def test_a_recipe_with_another_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.toml"
    path.write_text('model = "tiny-clip"\ncolour = 3\n')
    with pytest.raises(InputError, match="recipe of a model"):
        ModelRecipe.read(path)


@needs_font
def test_the_bundled_clip_names_and_the_bundled_sam_draws() -> None:
    named = examine_clip(bundled("tiny-clip"), count=24)
    drawn = examine_sam(bundled("tiny-sam"), count=6)
    assert all(0 <= value <= 1 for value in (named | drawn).values())
    assert named["zero-shot top-1"] > 0.6
    assert drawn["box IoU above 32 px"] > 0.5
