"""One call for recipes of all kinds: which kind a file is, what is compared, and what is heard meanwhile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import annofree.experiments.measure
from annofree.errors import InputError, MissingError
from annofree.evaluation.accumulators import Figures
from annofree.experiments.measure import Recipe
from annofree.experiments.models import ModelRecipe
from annofree.experiments.reproduce import reproduce
from annofree.io.callbacks import Callbacks
from annofree.training.tiny.evaluate import EXAMS

ROOT = Path(__file__).parents[2] / "recipes"


def test_a_bundled_model_is_examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, heard = ROOT / "emoji" / "tiny-sam.toml", []
    expected = ModelRecipe.read(path).expected
    measured = {name: value / 100 for name, value in expected.items()} | {"box IoU": 0.01}
    monkeypatch.setitem(EXAMS, "tiny-sam", lambda folder, font: measured)
    callbacks = Callbacks(on_stage=lambda *stage: heard.append(stage))
    found = reproduce(str(path), out=tmp_path / "out", callbacks=callbacks)
    assert isinstance(found.recipe, ModelRecipe) and heard == [("", "examining tiny-sam")]
    (off,) = found.off
    assert off.startswith("tiny-sam: box IoU is 1.0, expected ") and found.figures["tiny-sam"]["box IoU"] == 1.0
    written = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert (written["recipe"], written["figures"]) == ("tiny-sam.toml", found.figures)


def test_runs_are_measured_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "emoji" / "zip.toml"
    recipe = Recipe.read(path)
    figures: dict[str, Figures] = {run.name: dict(run.expected) for run in recipe.runs}
    monkeypatch.setattr(annofree.experiments.measure, "measure_runs", lambda *_, **__: figures)
    assert reproduce(path).off == () and reproduce(path).recipe == recipe
    name = next(run.name for run in recipe.runs if "all AP" in run.expected)
    del figures[name]["all AP"]
    assert [line.split(" was not")[0] for line in reproduce(path).off] == [f"{name}: all AP"]
    assert reproduce(path, limit=1).off == reproduce(path, only=[name]).off == ()


def test_the_data_of_a_paper_are_looked_for_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "zutis" / "cub.toml"
    monkeypatch.delenv("ANNOFREE_DATA", raising=False)
    with pytest.raises(MissingError, match="pass --data DIR or set ANNOFREE_DATA"):
        reproduce(path)
    for data in (None, tmp_path):
        monkeypatch.setenv("ANNOFREE_DATA", str(tmp_path if data is None else tmp_path / "elsewhere"))
        with pytest.raises(MissingError, match=rf"cub.toml needs what is not in {tmp_path}: "):
            reproduce(path, data=data)


def test_what_is_no_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a recipe at .*none\.toml, but it cannot be read"):
        reproduce(tmp_path / "none.toml")
    for text, why in (
        ("title = ", "a recipe in"),
        ('paper = "x"', "a recipe of a paper in"),
        ("model = 3", "recipe of a model in"),
    ):
        (tmp_path / "odd.toml").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=f"{why} .*odd.toml, but it is not one"):
            reproduce(tmp_path / "odd.toml", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
