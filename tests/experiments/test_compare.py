"""Figures against what was expected of them, and the files that the findings of runs are kept in."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annofree.evaluation.accumulators import Figures, compute_figures
from annofree.experiments.compare import find_missed, make_figure_writer, name_file
from annofree.formats.coco import CocoFile

ROOT = Path(__file__).parents[2]
EMOJI = ROOT / "recipes" / "emoji"


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"all AP": 0.0}, []),
        ({"all AP": 0.5}, []),
        ({"all AP": 0.6}, ["zip: all AP is 0.6, expected 0.0 +- 0.5"]),
        ({"all AP": None}, ["zip: all AP is None, expected 0.0 +- 0.5"]),
        ({"all AP": float("nan")}, ["zip: all AP is nan, expected 0.0 +- 0.5"]),
        ({"all APP": 0.0}, ["zip: all AP was not measured, expected 0.0 +- 0.5; did you mean 'all APP'?"]),
        ({}, ["zip: all AP was not measured, expected 0.0 +- 0.5"]),
    ],
)
def test_what_is_off_is_named(figures: Figures, said: list[str]) -> None:
    assert find_missed("zip", {"all AP": 0.0}, figures, 0.5) == said


class Findings:
    def __init__(self, said: str) -> None:
        self.said = said

    def write(self, path: Path) -> None:
        path.write_text(self.said, encoding="utf-8")


def test_each_run_has_a_file_of_its_own(tmp_path: Path) -> None:
    names = ["a b", "a+b", "a-b", "a/b", "a%2Fb", "../a", "figures", "%66igures", "Größe: 1"]
    for name in names:
        make_figure_writer(tmp_path)(name, Findings(name))
    kept = {path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert kept == set(names) and not (tmp_path / "figures.json").exists()
    make_figure_writer(None)("a", Findings("nowhere"))


@given(st.text(min_size=1), st.text(min_size=1))
def test_no_two_names_share_a_file(one: str, other: str) -> None:
    try:
        names = name_file(one), name_file(other)
    except UnicodeEncodeError:  # lone surrogates, which no TOML has
        return
    assert (names[0] == names[1]) == (one == other)
    assert all(not set('/\\:*?"<>|\0') & set(name) for name in names)


def measured_names() -> dict[str, set[str]]:
    """The names of figures that runs of each task have in the recipes' world, measured on four images."""
    data = json.loads((ROOT / "examples" / "validation" / "truth.json").read_text(encoding="utf-8"))
    images = [next(row for row in data["images"] if row["split"] == s) for s in ("plain", "touching", "cluttered")]
    rows = [a for a in data["annotations"] if a["image_id"] in {i["id"] for i in images}]
    found = CocoFile(images, data["categories"], [row | {"score": 0.9} for row in rows])
    instance = set(compute_figures(CocoFile(images, data["categories"], rows), found, "split"))
    views, groups = ("mIoU", "mIoU of things", "pixel accuracy"), (*(i["split"] for i in images), "all")
    edges = {f"edge {v} {px} px" for v in ("precision", "recall", "F") for px in (1, 2, 3)}
    return {
        "instance": instance | {"all class-agnostic CorLoc", "novel AP50", "base AP50"},
        "semantic": {f"{group} {v}" for group in groups for v in views},
        "boundary": {f"{group} {v}" for group in groups for v in edges},
    }


def test_recipes_expect_what_is_measured() -> None:
    names, seen = measured_names(), 0
    for path in sorted(EMOJI.glob("*.toml")):
        recipe = tomllib.loads(path.read_text(encoding="utf-8"))
        for run in recipe.get("run", []):
            assert set(run.get("expected", {})) <= names[run.get("task", "instance")], (path.name, run["name"])
            seen += len(run.get("expected", {}))
    assert seen > 100


@pytest.mark.parametrize("model", ["tiny-clip", "tiny-clip-vit", "tiny-dino", "tiny-sam", "tiny-found"])
def test_exams_of_bundled_models_have_what_their_recipes_expect(model: str) -> None:
    expected = tomllib.loads((EMOJI / f"{model}.toml").read_text(encoding="utf-8"))["expected"]
    card = json.loads((ROOT / "src" / "annofree" / "assets" / model / "card.json").read_text(encoding="utf-8"))
    assert expected and set(expected) <= set(card["figures"])
