"""Recipes: reading them, running a small one on the bundled models, and sharing what their runs have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from tests.support.recipes import recipe_head

from annofree.errors import InputError
from annofree.evaluation.accumulators import score_apart
from annofree.experiments.measure import Recipe, Run, compute_figures, measure_runs
from annofree.experiments.shared_models import list_verbs, memoize_per_image
from annofree.features.clip import Clip
from annofree.features.dino import Dino
from annofree.features.paired_clip import PairedClip
from annofree.features.saliency import FoundObjectness
from annofree.features.sam import Sam
from annofree.features.selfmask import SelfMask
from annofree.formats.coco import CocoFile
from annofree.io.images import read_image
from annofree.methods.build import OPENERS
from annofree.methods.components import Models
from annofree.protocols import Embedding
from annofree.structures import FeatureMap, Image, Vocabulary
from annofree.testing.fakes import FakeClip, FakeSam, FakeZutis

VALIDATION = Path(__file__).parents[2] / "examples" / "validation"

WORLD = {"world": "emoji", "truth": f"{VALIDATION}/truth.json", "images": f"{VALIDATION}/images", "group_by": "split"}
HEAD = recipe_head(title="Two runs", tier="S2", **WORLD)
RUNS = """
[[run]]
name = "zip"
expected = { "plain AP" = 50.0 }

[[run]]
name = "coarse"
variant = "paper"
settings = { prompting = "none", seeding = { init = "linspace" } }
"""
FIGURES = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large", "AR10", "AR100")
VIEWS = ("", "box ", "class-agnostic ", "class-agnostic boxes ")


def written(folder: Path, text: str = HEAD + RUNS) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


@cache
def models() -> tuple[Clip, Sam]:
    tiny = Models("tiny", "cpu")
    return cast(Clip, tiny.clip), cast(Sam, tiny.sam)


# Names apart


def test_novel_names_are_scored_apart_from_all_others(tmp_path: Path) -> None:
    truth = CocoFile.with_categories({1: "dog", 2: "cat", 3: "cow"})
    row = {
        "image_id": truth.add_image("a.jpg", (40, 40)),
        "bbox": [0, 0, 20, 20],
        "segmentation": [[0, 0, 20, 0, 20, 20, 0, 20]],
    }
    truth.add_annotations([{**row, "category_id": k, "area": 400, "iscrowd": 0} for k in (1, 2, 3)])
    found = CocoFile(images=truth.images, categories=truth.categories)
    found.add_annotations([{**row, "category_id": k, "area": 400, "score": 0.9} for k in (1, 3)])
    figures = score_apart(truth, found, ["dog"])
    assert (figures["novel AP50"], figures["base AP50"], figures["base box AP50"]) == (100.0, 50.0, 50.0)
    assert not {name for name in score_apart(truth, found, ["dog", "cat", "cow"]) if name.startswith("base")}
    recipe = Recipe.read(written(tmp_path, 'novel = ["zebu"]\n' + HEAD + RUNS))
    with pytest.raises(InputError, match=r"unknown novel name in .*truth.json 'zebu'; did you mean 'zebra'"):
        measure_runs(recipe, on_progress=lambda done, total: None)


# Reading


def test_a_recipe_is_read(tmp_path: Path) -> None:
    recipe = Recipe.read(written(tmp_path))
    assert (recipe.title, recipe.models, recipe.tolerance) == ("Two runs", "tiny", 0.5)
    assert recipe.truth == VALIDATION / "truth.json"
    first, second = recipe.runs
    assert first == Run("zip", expected={"plain AP": 50.0})
    assert second == Run("coarse", variant="paper", settings={"prompting": "none", "seeding": {"init": "linspace"}})


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    recipe = Recipe.read(written(tmp_path, HEAD.replace(str(VALIDATION), "../data") + RUNS))
    assert recipe.truth == tmp_path / "../data/truth.json"
    assert recipe.images == tmp_path / "../data/images"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("title = ", "Invalid value"),
        (HEAD.replace('truth = "', 'thruth = "'), "truth"),
        (HEAD + "speed = 3\n", "speed"),
        (HEAD.replace("minutes = 1\n", ""), "minutes"),
        (HEAD + RUNS + "colour = 1\n", "colour"),
        (HEAD + "[[run]]\nmethod = 'zip'\n", "name"),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_line(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(InputError, match=rf"expected a recipe in .*recipe\.toml, but it is not one: .*{why}") as refusal:
        Recipe.read(written(tmp_path, text))
    assert "\n" not in str(refusal.value)


def test_a_recipe_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a recipe at .*none\.toml, but it cannot be read: No such file"):
        Recipe.read(tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        Recipe.read(tmp_path)
    (tmp_path / "picture.toml").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(InputError, match=r"expected a recipe in .*picture\.toml, but it is not one"):
        Recipe.read(tmp_path / "picture.toml")


# Running

COSTS = {"all seconds an image", "all million parameters"}


def quiet(done: int, total: int) -> None:
    pass


def test_two_runs_give_the_figures_of_each_group(tmp_path: Path) -> None:
    recipe, progress, files = Recipe.read(written(tmp_path)), [], {}

    def keep(name: str, found: CocoFile) -> None:
        files[name] = found

    def show(done: int, total: int) -> None:
        progress.append((done, total))

    figures = measure_runs(recipe, limit=1, on_progress=show, on_found=keep)
    assert list(figures) == list(files) == ["zip", "coarse"]
    groups = ("plain", "cluttered", "touching", "all")
    expected = {f"{g} {v}{f}" for g in groups for v in VIEWS for f in FIGURES}
    expected |= {f"{g} {v}separated" for g in groups for v in ("", "class-agnostic ")}
    answer = ("precision", "recall", "F1", "duplicates", "count error", "calibration error")
    expected |= {f"{g} {name}" for g in groups for name in answer}
    for run in figures.values():
        assert run.keys() == expected | COSTS
        assert all(value is None or 0 <= value <= 100 for value in run.values())
    assert progress == [(0, 3), (1, 3), (2, 3), (3, 3)]
    for found in files.values():
        assert [row["split"] for row in found.images] == ["plain", "cluttered", "touching"]
        assert {row["image_id"] for row in found.annotations} <= {row["id"] for row in found.images}
        assert found.annotations
    assert (figures["zip"]["all class-agnostic AP"] or 0) > (figures["coarse"]["all class-agnostic AP"] or 0)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that cost nothing, and find nothing in scenes of emoji."""
    monkeypatch.setattr(Models, "clip", FakeClip())
    monkeypatch.setattr(Models, "sam", FakeSam())


@pytest.mark.usefixtures("fakes")
def test_some_runs_only(tmp_path: Path) -> None:
    recipe = Recipe.read(written(tmp_path))
    assert list(measure_runs(recipe, limit=1, only=["coarse"], on_progress=quiet)) == ["coarse"]


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize(
    ("run", "only", "message"),
    [
        ("", ["coarsely"], r"unknown run 'coarsely'; did you mean 'coarse'\?"),
        ("[[run]]\nname = 'c'\ncontrol = 'rbg'\n", [], r"unknown control 'rbg'; did you mean 'rgb'\?"),
        ("[[run]]\nname = 'm'\nmethod = 'zap'\n", [], r"unknown method 'zap'; did you mean 'zip'\?"),
        ("[[run]]\nname = 'v'\nvariant = 'papers'\n", [], r"unknown variant of zip 'papers'; did you mean 'paper'\?"),
        ("[[run]]\nname = 's'\nsettings = { mots = 3 }\n", [], r"unknown setting 'mots'; did you mean 'most'\?"),
    ],
)
def test_unknown_names_are_refused_before_any_picture(tmp_path: Path, run: str, only: Sequence[str], message: str) -> None:
    recipe, seen = Recipe.read(written(tmp_path, HEAD + RUNS + run)), []
    with pytest.raises(InputError, match=message):
        measure_runs(recipe, limit=1, only=only, on_progress=lambda done, total: seen.append(done))
    assert seen == []


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("then = { redrw = 'box' }", "unknown field of the steps of the run 's' 'redrw'; did you mean 'redraw'"),
        ("then = { redraw = 'boxes' }", "expected redraw of the steps of the run 's' as 'none' or 'box' or 'box.point', got"),
        ("then = { name = 'clip' }", "expected name of the steps of the run 's' as a table, got 'clip'"),
        ("then = { regions = true }", "expected a method of label maps for the regions of the run 's', got zip"),
        ("method = 'maskclip'\ntask = 'semantic'\nthen = { redraw = 'box' }", "expected steps after a run of instances alone"),
        ("cluster = 'dino'", "expected cluster of a run of instances without names, got it in 's'"),
        ("method = 'maskcut'\ncluster = 'dino'\ntask = 'boundary'", "expected cluster of a run of instances without names"),
        ("method = 'maskcut'\ncluster = 'dino'\nthen = { name = {} }", "expected cluster of a run of instances without"),
    ],
)
def test_steps_that_cannot_be_are_refused_before_any_picture(tmp_path: Path, run: str, message: str) -> None:
    recipe, seen = Recipe.read(written(tmp_path, f"{HEAD}{RUNS}[[run]]\nname = 's'\n{run}\n")), []
    with pytest.raises(InputError, match=message):
        measure_runs(recipe, limit=1, on_progress=lambda done, total: seen.append(done))
    assert seen == []


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("timed = true\nbeside = 'zup'", r"unknown run beside 't' 'zup'; did you mean 'zip'\?"),
        ("timed = true\nbeside = 'zip'", "expected times of 't' and of 'zip' beside it, got none of 'zip'; put timed = true"),
        ("beside = 't'", "got none of 't'; put timed = true"),
        ("timed = 'yes'", "expected timed of the run 't' as true or false, got 'yes'"),
        ("cluster = 'dinos'", "expected cluster of the run 't' as '' or 'dino' or 'clip', got 'dinos'"),
    ],
)
def test_times_and_clusters_that_cannot_be_are_refused_as_the_recipe_is_read(tmp_path: Path, run: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe.read(written(tmp_path, f"{HEAD}{RUNS}[[run]]\nname = 't'\n{run}\n"))


@pytest.mark.usefixtures("fakes")
def test_missing_pictures_are_named(tmp_path: Path) -> None:
    recipe = Recipe.read(written(tmp_path, HEAD.replace("/images", "/pictures") + RUNS))
    with pytest.raises(InputError, match=r"plain-00\.jpg among them"):
        measure_runs(recipe, limit=1, on_progress=quiet)


def test_runs_have_names_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"to have a name of its own, got 'coarse', 'zip' twice"):
        Recipe.read(written(tmp_path, HEAD + RUNS + RUNS))


def test_a_run_asks_and_scores_the_names_it_gives(tmp_path: Path) -> None:
    runs = """
[[run]]
name = "all"
method = "maskclip"

[[run]]
name = "two"
method = "maskclip"
names = ["elephant", "orange"]
"""
    found: dict[str, CocoFile] = {}
    recipe = Recipe.read(written(tmp_path, HEAD + runs))
    figures = measure_runs(recipe, limit=2, on_progress=lambda *_: None, on_found=found.__setitem__)
    assert [row["name"] for row in found["two"].categories] == ["elephant", "orange"]
    assert {a["category_id"] for a in found["two"].annotations} <= {row["id"] for row in found["two"].categories}
    assert len(found["all"].categories) == 65 and figures["all"].keys() == figures["two"].keys()


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ('names = ["elefant"]', "unknown category 'elefant'"),
        ('names = ["orange"]\ntask = "semantic"', "expected names of a run of instances alone"),
        ('parts = { sam = "sam-b" }', "unknown part in the run 'one' 'sam'"),
        (
            'parts = { zutis = "made/best" }',
            "expected of made/... one of zutis, detector, namedmask, archive that was made before the run 'one'",
        ),
        ('parts = { clip = "tiny-klip" }', "unknown model 'tiny-klip'|unknown .*'tiny-klip'"),
    ],
)
def test_names_and_parts_that_are_not_there_are_refused(tmp_path: Path, run: str, message: str) -> None:
    recipe = Recipe.read(written(tmp_path, f'{HEAD}[[run]]\nname = "one"\nmethod = "maskclip"\n{run}\n'))
    with pytest.raises(InputError, match=message):
        measure_runs(recipe, limit=1, on_progress=lambda *_: None)


def test_a_run_takes_a_part_that_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, str]] = []

    def loaded(place: Path, device: str) -> FakeZutis:
        asked.append((place, device))
        return FakeZutis()

    monkeypatch.setitem(OPENERS, "zutis", loaded)
    monkeypatch.setattr(Models, "clip", FakeClip())
    run = '[[run]]\nname = "one"\nmethod = "zutis"\nparts = { zutis = "made/best" }\n'
    figures = measure_runs(Recipe.read(written(tmp_path, HEAD + run)), limit=1, made=tmp_path, on_progress=lambda *_: None)
    assert asked == [(tmp_path / "best", "cpu")] and "all AP" in figures["one"]


ROWS = """
[[run]]
name = "masks"
method = "sam_everything"
variant = "fast"

[[run]]
name = "clusters"
method = "sam_everything"
variant = "fast"
cluster = "clip"

[[run]]
name = "named"
method = "sam_everything"
variant = "fast"
then = { name = { look = "masked" } }

[[run]]
name = "drawn"
method = "maskclip"
then = { regions = true, redraw = "box" }
timed = true
beside = "slow"

[[run]]
name = "slow"
method = "zip"
timed = true

[[run]]
name = "fragments' edges"
task = "boundary"

[[run]]
name = "masks' edges"
method = "sam_everything"
variant = "fast"
task = "boundary"
"""


@pytest.mark.usefixtures("fakes")
def test_rows_without_names_rows_with_steps_edges_and_seconds(tmp_path: Path) -> None:
    figures = measure_runs(Recipe.read(written(tmp_path, HEAD + ROWS)), limit=1, on_progress=quiet)
    assert all(" class-agnostic " in name for name in figures["masks"].keys() - COSTS)
    assert {"all class-agnostic AP large", "all class-agnostic AR10", "all class-agnostic CorLoc"} <= figures["masks"].keys()
    agnostic = [name for name in figures["masks"].keys() - COSTS if "CorLoc" not in name]
    assert all(figures["clusters"][name] == figures["masks"][name] for name in agnostic)
    for name in ("clusters", "named", "drawn"):
        assert {"all AP", "all AP small", "all class-agnostic AP"} <= figures[name].keys()
    assert all((each["all seconds an image"] or 0) > 0 and "all million parameters" in each for each in figures.values())
    ratio = (figures["slow"]["all seconds an image"] or 0) / (figures["drawn"]["all seconds an image"] or 1)
    assert figures["drawn"]["all times as fast"] == pytest.approx(ratio, rel=0.2, abs=0.2)
    for name in ("fragments' edges", "masks' edges"):
        assert {n for n in figures[name] if n.startswith("all edge")} == {
            f"all edge {what} {px} px" for what in ("precision", "recall", "F") for px in (1, 2, 3)
        }


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("then = { redrawn = 'box' }", r"unknown field of the steps of the run 'one' 'redrawn'; did you mean 'redraw'"),
        ("then = { redraw = 'boxes' }", r"expected redraw of the steps of the run 'one' as .*'box'"),
        ("cluster = 'sam'", r"expected cluster of the run 'one' as "),
    ],
)
def test_steps_that_are_not_there_are_refused(tmp_path: Path, run: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        recipe = Recipe.read(written(tmp_path, f'{HEAD}[[run]]\nname = "one"\n{run}\n'))
        measure_runs(recipe, limit=1, on_progress=quiet)


def test_figures_of_perfect_predictions() -> None:
    data = json.loads((VALIDATION / "truth.json").read_text(encoding="utf-8"))
    images = data["images"][:4]
    rows = [a for a in data["annotations"] if a["image_id"] in {i["id"] for i in images}]
    truth = CocoFile(images, data["categories"], rows)
    found = CocoFile(images, data["categories"], [row | {"score": 0.9} for row in rows])
    figures = compute_figures(truth, found, "split")
    assert {name: figures[name] for name in ("plain AP", "all AR100", "all box AP50", "all class-agnostic AP75")} == {
        "plain AP": 100.0,
        "all AR100": 100.0,
        "all box AP50": 100.0,
        "all class-agnostic AP75": 100.0,
    }
    without = compute_figures(truth, found, "weather")
    assert {name.split()[0] for name in without} == {"all"}


# Sharing


def pictures() -> list[Image]:
    return [read_image(VALIDATION / "images" / f"{name}.jpg") for name in ("plain-00", "touching-00")]


def alike(one: Any, other: Any) -> bool:
    if isinstance(one, FeatureMap):
        return one.size == other.size and torch.equal(one.values, other.values)
    if isinstance(one, Embedding):
        return one.size == other.size and all(torch.equal(a, b) for a, b in zip(one.state, other.state, strict=True))
    return torch.equal(one, other)


@pytest.mark.parametrize("verb", ["encode_image", "encode_dense", "encode_boundaries", "embed"])
def test_shared_models_give_what_the_models_give(verb: str) -> None:
    clip, sam = models()
    plain: Any = sam if verb == "embed" else clip
    twin: Any = memoize_per_image(plain)
    one, other = pictures()
    expected = {i.id: getattr(plain, verb)([i])[0] for i in (one, other)}
    assert not alike(expected[one.id], expected[other.id])
    for image in (one, one, other, other, one):
        assert alike(getattr(twin, verb)([image])[0], expected[image.id])


def test_what_is_shared_is_computed_once_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    clip, _ = models()
    asked: list[list[str]] = []
    whole = Clip.encode_image

    def counted(self: Clip, images: Sequence[Image]) -> torch.Tensor:
        asked.append([i.id for i in images])
        return whole(self, images)

    monkeypatch.setattr(Clip, "encode_image", counted)
    twin = memoize_per_image(clip)
    one, other = Image(np.zeros((40, 60, 3), np.uint8), "one"), Image(np.full((40, 60, 3), 9, np.uint8), "other")
    for images in ([one], [one], [other], [one], [one, other], [one]):
        twin.encode_image(images)
    assert asked == [["one"], ["other"], ["one"], ["one", "other"]]
    twin.encode_image([Image(one.pixels, "one")])  # another image, for all that is known of it
    assert len(asked) == 5


def test_all_that_models_do_with_pictures_alone_is_shared() -> None:
    verbs = ["encode_boundaries", "encode_dense", "encode_image", "encode_raw"]
    assert list_verbs(Clip) == [*verbs, "extract_keys", "extract_values"]
    assert list_verbs(Dino) == ["extract_attention", "extract_keys", "extract_keys_and_attention", "extract_tokens"]
    assert list_verbs(SelfMask) == ["predict_maps", "predict_masks"]
    assert list_verbs(FoundObjectness) == ["predict_maps"] and list_verbs(Sam) == ["embed"]
    assert list_verbs(PairedClip) == [*verbs, "extract_values"]


def test_a_new_verb_is_shared_too() -> None:
    class Model:
        asked = 0

        def colors(self, images: Sequence[Image]) -> int:
            self.asked += len(images)
            return self.asked

    twin, image = memoize_per_image(Model()), pictures()[0]
    assert [twin.colors([image]) for _ in range(3)] == [1, 1, 1]


def test_shared_models_say_what_the_models_say() -> None:
    clip, sam = models()
    twin = memoize_per_image(clip)
    words = Vocabulary.of("dog, cat: kitten")
    assert twin.provenance == clip.provenance
    assert memoize_per_image(sam).provenance == sam.provenance
    assert torch.equal(twin.encode_text(words), clip.encode_text(words))
