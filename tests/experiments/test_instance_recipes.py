"""The recipes of instance rows: whole, their columns measured, and the pair of Zip's Table 5 run on a miniature of COCO."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from tests.support.recipe_kinds import is_published

from annofree.datasets.names import COCO_IDS, COCO_NAMES
from annofree.errors import InputError
from annofree.experiments.measure import Recipe, _check
from annofree.experiments.papers import PublishedRecipe
from annofree.formats.coco import CocoFile
from annofree.hub.download import Local
from annofree.hub.presets import find_preset
from annofree.methods import components as models_module
from annofree.methods.build import change_settings
from annofree.methods.components import Models
from annofree.methods.registry import find_method
from annofree.structures import Detections
from annofree.testing.fakes import FakeClip, FakeDino, FakeSam
from annofree.testing.paper_world import draw_paper_scenes

ROOT = Path(__file__).parents[2] / "recipes"
PUBLISHED = [path for room in ("zip", "instances") for path in sorted((ROOT / room).glob("*.toml")) if is_published(path)]
MEASURED = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large", "AR10", "AR100")
COLUMNS = {f"all {view}{name}" for view in ("", "class-agnostic ") for name in MEASURED}
COLUMNS |= {"all class-agnostic CorLoc", "all times as fast", "novel AP50"}


def quiet(done: int, total: int) -> None:
    pass


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_paper_s_recipe_is_whole(path: Path) -> None:
    recipe = PublishedRecipe.read(path)
    for run in recipe.runs:
        entry = find_method(run.method, run.variant)
        change_settings(entry.variants[run.variant], run.settings)
        find_preset(run.models or recipe.models).find_cards()
        assert run.quoted and run.note and {*run.quoted} <= COLUMNS
        if run.agnostic and not run.cluster:
            assert all(" class-agnostic " in name for name in run.quoted)
        assert not run.beside or run.beside in [other.name for other in recipe.runs]


@pytest.mark.parametrize("name", ["instances", "ablations", "open_vocabulary"])
def test_rows_of_emoji_can_be_measured(name: str) -> None:
    recipe = Recipe.read(ROOT / "emoji" / f"{name}.toml")
    for run in recipe.runs:
        _check(run)
        change_settings(find_method(run.method, run.variant).variants[run.variant], run.settings)
        assert not run.beside or any(other.name == run.beside and other.timed for other in recipe.runs)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """COCO val2017 of paper scenes, and models that know paper."""
    for name, model in (("clip", FakeClip()), ("sam", FakeSam()), ("dino", FakeDino())):
        monkeypatch.setattr(Models, name, model)
    monkeypatch.setattr(models_module, "fetch", lambda cards, **_: [Local(card, Path("nowhere")) for card in cards])
    file = CocoFile.with_categories(dict(zip(COCO_IDS, COCO_NAMES, strict=True)))
    (tmp_path / "coco" / "val2017").mkdir(parents=True)
    (tmp_path / "coco" / "annotations").mkdir()
    for scene in [s for s in draw_paper_scenes() if {*s.names} <= {*COCO_NAMES}][:3]:
        name = f"{scene.image.id}.png".replace(" ", "_")
        PIL.Image.fromarray(scene.image.pixels).save(tmp_path / "coco" / "val2017" / name)
        classes = [COCO_NAMES.index(n) for n in scene.names]
        found = Detections.from_masks(scene.masks, classes, [1.0] * len(classes), COCO_NAMES)
        rows = found.to_coco(file.add_image(name, scene.image.size), COCO_IDS)
        file.add_annotations([{k: v for k, v in row.items() if k != "score"} for row in rows])
    file.write(tmp_path / "coco" / "annotations" / "instances_val2017.json")
    return tmp_path


def test_the_pair_of_table_5_is_timed(data: Path) -> None:
    figures = PublishedRecipe.read(ROOT / "zip" / "table-speed.toml").measure(data, device="cpu", on_progress=quiet)
    slow, fast = figures["crop by crop"], figures["one pass"]
    assert slow["all times as fast"] == 1.0 and (slow["all AP"] or 0) > 50
    ratio = (slow["all seconds an image"] or 0) / (fast["all seconds an image"] or 1)
    assert fast["all times as fast"] == pytest.approx(ratio, rel=0.1, abs=0.1)


def test_rows_without_names_and_rows_named_afterwards(data: Path) -> None:
    names = ["SAM, parallel form, SAM-B", "cuts of DINOv2, SAM by their boxes, named"]
    recipe = PublishedRecipe.read(ROOT / "zip" / "table-coco.toml")
    figures = recipe.measure(data, device="cpu", limit=1, only=names, on_progress=quiet)
    assert "all AP" not in figures[names[0]] and "all class-agnostic AR100" in figures[names[0]]
    assert "all AP" in figures[names[1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beside": "crop by krop"}, "unknown run beside 'one pass' 'crop by krop'; did you mean 'crop by crop'"),
        ({"cluster": "clop"}, "expected cluster of the run 'one pass' as '' or 'dino' or 'clip', got 'clop'"),
        ({"protocol": "coco-object"}, "got none of 'one pass'; runs of instances are timed"),
    ],
)
def test_what_a_row_cannot_have_is_refused_as_the_recipe_is_read(change: dict[str, str], message: str) -> None:
    path = ROOT / "zip" / "table-speed.toml"
    held = tomllib.loads(path.read_text(encoding="utf-8"))
    held["run"][1] |= change
    with pytest.raises(InputError, match=message):
        PublishedRecipe.of(held, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"then": {"redrw": "box"}}, "unknown field of the steps of the run 'one pass' 'redrw'; did you mean 'redraw'"),
        ({"then": {"regions": True}}, "expected a method of label maps for the regions of the run 'one pass', got sam_clip"),
        ({"cluster": "clip"}, "expected cluster of a run of instances without names, got it in 'one pass'"),
    ],
)
def test_steps_that_cannot_follow_are_refused_before_any_model(data: Path, change: dict[str, Any], message: str) -> None:
    recipe, heard = PublishedRecipe.read(ROOT / "zip" / "table-speed.toml"), list[str]()
    changed = replace(recipe, runs=(recipe.runs[0], replace(recipe.runs[1], **change)))
    with pytest.raises(InputError, match=message):
        changed.measure(data, device="cpu", on_progress=quiet, on_run=heard.append)
    assert heard == []
