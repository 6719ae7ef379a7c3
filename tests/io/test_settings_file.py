"""Settings that people write: names, types and files that are refused in one line, and recipes that all can be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.support.recipe_kinds import is_published

from annofree.detectors.config import DetectorConfig
from annofree.errors import InputError
from annofree.experiments.measure import Recipe
from annofree.experiments.models import ModelRecipe
from annofree.experiments.papers import PublishedRecipe
from annofree.io.settings_file import check_fields, check_type, read_toml
from annofree.methods.build import change_settings
from annofree.methods.policies import resolve_policy
from annofree.methods.registry import METHODS
from annofree.pipelines.training.stages import read_making
from annofree.training.detector.recipe import DetectorRecipe
from annofree.training.zutis.recipe import ZutisRecipe

RECIPES = Path(__file__).parents[2] / "recipes"


@dataclass(frozen=True)
class Inner:
    deep: int = 1


@dataclass(frozen=True)
class Settings:
    side: int
    share: float = 0.5
    name: str | None = None
    place: Path = Path("a")
    kind: Literal["one", "two"] = "one"
    sides: tuple[int, ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    spans: Sequence[float] = ()
    table: Mapping[str, float] = field(default_factory=dict)
    inner: Inner = Inner()
    all: bool = False
    free: Any = None


@pytest.mark.parametrize(
    "given",
    [
        {"share": 1, "name": "a", "place": "b", "kind": "two", "sides": [1, 2], "pair": (1, 0.5)},
        {"name": None, "place": Path("b"), "spans": [0.5, 1], "table": {"a": 1, "b": 0.5}, "inner": {"deep": 2}},
        {"inner": Inner(2), "all": True, "free": object(), "sides": ()},
    ],
)
def test_what_toml_writes_of_a_type_is_taken(given: dict[str, Any]) -> None:
    check_fields(Settings, {"side": 3, **given}, "the settings")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"side": "800"}, "expected side of the settings as a whole number, got '800'"),
        ({"side": 1.5}, "as a whole number, got 1.5"),
        ({"side": True}, "as a whole number, got True"),
        ({"share": "a"}, "expected share of the settings as a number, got 'a'"),
        ({"share": False}, "as a number, got False"),
        ({"name": 7}, "expected name of the settings as a text, got 7"),
        ({"place": 7}, "expected place of the settings as a path, got 7"),
        ({"kind": "three"}, "expected kind of the settings as 'one' or 'two', got 'three'"),
        ({"sides": 32}, "expected sides of the settings as a list of whole numbers, got 32"),
        ({"sides": [1, "2"]}, r"as a list of whole numbers, got \[1, '2'\]"),
        ({"sides": "12"}, "as a list of whole numbers, got '12'"),
        ({"pair": [1]}, r"expected pair of the settings as a list of 2 numbers, got \[1\]"),
        ({"spans": ["a"]}, "as a list of numbers"),
        ({"table": {"a": "b"}}, "expected table of the settings as a table, got"),
        ({"table": 3}, "as a table, got 3"),
        ({"inner": 3}, "expected inner of the settings as a table, got 3"),
        ({"all": 1}, "expected all of the settings as true or false, got 1"),
        ({"sdie": 3}, "unknown field of the settings 'sdie'; did you mean 'side'"),
    ],
)
def test_another_type_is_refused_in_words(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as refusal:
        check_fields(Settings, {"side": 3, **given}, "the settings")
    assert "\n" not in str(refusal.value)


def test_what_lacks_is_named() -> None:
    with pytest.raises(InputError, match="expected side in the settings, got none"):
        check_fields(Settings, {"share": 1.0}, "the settings")
    check_fields(Settings, {"side": "800"}, "the settings", beside=("side",))
    check_type("side", 3, int)


def test_files_that_are_no_settings(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a plan at .*none\.toml, but it cannot be read: No such file"):
        read_toml(tmp_path / "none.toml", "a plan")
    (tmp_path / "a.toml").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"expected TOML in a plan at .*a\.toml"):
        read_toml(tmp_path / "a.toml", "a plan")


# Each reader of settings


def edited(folder: Path, recipe: str, old: str, new: str) -> Path:
    text = (RECIPES / recipe).read_text(encoding="utf-8")
    assert old in text
    path = folder / "recipe.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("recipe", "old", "new", "words"),
    [
        ("emoji/zip.toml", "images = ", "images = 7 #", "expected images of a recipe as a path, got 7"),
        ("emoji/zip.toml", "[[run]]", "[[run]]\nnames = 'cat'", "expected names of the run .* as a list of texts, got 'cat'"),
        ("emoji/zip.toml", "tolerance = ", "tolerence = ", "unknown field of a recipe 'tolerence'; did you mean 'tolerance'"),
        ("emoji/zip.toml", "[[run]]", "[[run]]\nexpected = 3\n[[run]]", "expected name in the run"),
    ],
)  # fmt: skip
def test_recipes_of_runs(tmp_path: Path, recipe: str, old: str, new: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Recipe.read(edited(tmp_path, recipe, old, new))


def test_runs_are_tables(tmp_path: Path) -> None:
    head = (RECIPES / "emoji" / "zip.toml").read_text(encoding="utf-8").split("[[run]]")[0]
    (tmp_path / "recipe.toml").write_text(f"{head}\nrun = 7\n", encoding="utf-8")
    with pytest.raises(InputError, match="expected run as a list of tables, got 7"):
        Recipe.read(tmp_path / "recipe.toml")


def test_recipes_of_papers_and_models(tmp_path: Path) -> None:
    paper = edited(tmp_path, "zutis/coco-20k.toml", "tolerance = ", 'tolerance = "1" #')
    with pytest.raises(InputError, match="expected tolerance of a recipe as a number, got '1'"):
        PublishedRecipe.read(paper)
    model = edited(tmp_path, "emoji/tiny-sam.toml", "tolerance = ", 'tolerance = "1" #')
    with pytest.raises(InputError, match="expected tolerance of the recipe as a number, got '1'"):
        ModelRecipe.read(model)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": {"side": "800"}}, r"expected side of \[network\] as a whole number, got '800'"),
        ({"network": {"anchors": 32}}, r"expected anchors of \[network\] as a list of whole numbers, got 32"),
        ({"network": {"rpn_nms": True}}, "as a number, got True"),
        ({"scenes": {"sides": 800}}, r"expected sides of \[scenes\] as a list of whole numbers, got 800"),
        ({"scenes": {"flip": "half"}}, r"expected flip of \[scenes\] as a number, got 'half'"),
        ({"labels": 7}, "expected labels as a path, got 7"),
        ({"network": 7}, "expected network as a table, got 7"),
        ({"initial": 7}, "expected initial as a text, got 7"),
    ],
)
def test_trainings_of_detectors(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        DetectorRecipe(**{"labels": Path("a"), "out": Path("b"), **change})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": {"queries": "24"}}, r"expected queries of \[network\] as a whole number, got '24'"),
        ({"scenes": {"crop": "192"}}, r"expected crop of \[scenes\] as a whole number, got '192'"),
        ({"scenes": {"images": 3}}, r"expected images of \[scenes\] as a list of whole numbers, got 3"),
        ({"exclude": 7}, "expected exclude as a list of texts, got 7"),
        ({"templates": 7}, "expected templates as a text or a list of texts, got 7"),
        ({"archive": 7}, "expected archive as a path, got 7"),
    ],
)
def test_trainings_of_zutis(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ZutisRecipe(**{"archive": Path("a"), "clip": "tiny-clip-vit", "out": Path("b"), **change})


def test_settings_of_methods_detectors_policies_and_makings() -> None:
    with pytest.raises(InputError, match="expected points of the settings as a whole number, got '16'"):
        change_settings(METHODS["sam_clip"].variants["default"], {"points": "16"})
    with pytest.raises(InputError, match="expected side of a detector as a whole number, got '800'"):
        DetectorConfig.of({"kind": "cascade", "names": ["a"], "side": "800"})
    with pytest.raises(InputError, match="expected floor of a policy as a number, got 'high'"):
        resolve_policy("tiny", "zip", {"floor": "high"})
    with pytest.raises(InputError, match="expected within of overlaps as a number, got 'much'"):
        resolve_policy("tiny", "zip", {"overlaps": {"within": "much"}})
    with pytest.raises(InputError, match=r"settings of zutis in .*: expected k of .* as a whole number"):
        read_making({"what": "zutis", "pictures": 4, "k": "1", "train": {"a": {}}})


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*/*.toml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_can_be_read(path: Path) -> None:
    held = read_toml(path, "a recipe")
    if is_published(path):
        PublishedRecipe.read(path)
    elif "model" in held:
        ModelRecipe.read(path)
    elif "truth" in held:
        recipe = Recipe.read(path)
        for run in recipe.runs:
            settings = METHODS[run.method].variants[run.variant]
            change_settings(settings, run.settings)
        if recipe.make:
            read_making(recipe.make)
    else:
        (ZutisRecipe if "archive" in held else DetectorRecipe).read(path)
