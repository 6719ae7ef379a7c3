"""Recipes whose runs name pixels: their figures are those of scoring each method by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from tests.support.recipes import recipe_head

from annofree.datasets.benchmarks.coco_object import open_coco_instances
from annofree.errors import InputError
from annofree.evaluation.predict_semantic import score_method
from annofree.evaluation.protocols.semantic import find_semantic_protocol
from annofree.experiments.asking import SECONDS
from annofree.experiments.costs import PARAMETERS
from annofree.experiments.measure import Recipe, measure_runs
from annofree.formats.coco import CocoFile
from annofree.hub.download import Local
from annofree.methods import components as models_module
from annofree.methods.build import build_method
from annofree.methods.components import Models
from annofree.methods.dense.clip_diy import ClipDiy
from annofree.methods.dense.dense_clip import DenseClip
from annofree.structures import Detections, Image
from annofree.testing.fakes import FakeClip, FakeDino, FakeObjectness, FakeSam
from annofree.testing.paper_world import NAMES, draw_paper_scenes

HEAD = recipe_head(title="Pixels of paper", images="images", models="tiny-clip+tiny-sam+dino-vit-s-8", group_by="split")
SMALL = "side = 16, canvas = 64, scales = [0, 1]"
SEMANTIC = """
[[run]]
name = "{}"
method = "clip_diy"
task = "semantic"
objectness = "{}"
settings = {{ {} }}
"""
RUNS = f"""
[[run]]
name = "maskclip"
method = "maskclip"
task = "semantic"
{SEMANTIC.format("whole image", "none", "side = 16, canvas = 64, scales = [0]")}
{SEMANTIC.format("tokencut", "tokencut", SMALL)}
{SEMANTIC.format("of instances", "instances", SMALL)}
[[run]]
name = "maskclip's regions"
method = "maskclip"

[[run]]
name = "zip"
"""
SPLITS = {"touching": "touching", "two classes": "plain", "edge": "plain", "off-grid": "plain", "empty": "cluttered"}


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    for part, fake in {"clip": FakeClip(), "sam": FakeSam(), "dino": FakeDino()}.items():
        monkeypatch.setattr(Models, part, fake)
    monkeypatch.setattr(models_module, "fetch", lambda cards, **_: [Local(card, Path("nowhere")) for card in cards])


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe for some scenes of the paper world; two of its images have one stem."""
    (tmp_path / "images").mkdir()
    file = CocoFile.with_categories({10 * (k + 1): name for k, name in enumerate(NAMES)})
    for scene in (s for s in draw_paper_scenes() if s.image.id in SPLITS):
        name = {"two classes": "a.png", "edge": "a.bmp"}.get(scene.image.id, f"{scene.image.id}.png")
        PIL.Image.fromarray(scene.image.pixels).save(tmp_path / "images" / name)
        id_ = file.add_image(name, scene.image.size, split=SPLITS[scene.image.id])
        found = Detections.from_masks(scene.masks, [NAMES.index(n) for n in scene.names], [1.0] * len(scene.masks), NAMES)
        rows = found.to_coco(id_, [10 * (k + 1) for k in range(len(NAMES))])
        file.add_annotations([{k: v for k, v in row.items() if k != "score"} for row in rows])
    file.write(tmp_path / "truth.json")
    return written(tmp_path, RUNS)


def written(folder: Path, runs: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(HEAD + runs, encoding="utf-8")
    return path


def quiet(done: int, total: int) -> None:
    pass


def alone(recipe: Recipe, name: str) -> dict[str, float | None]:
    """Score one run by itself, in the images of each group."""
    (run,) = (r for r in recipe.runs if r.name == name)
    models: Any = Models(recipe.models, "cpu", objectness=run.objectness)
    models = models.with_parts(segmenter=build_method("zip", models), classes=NAMES)
    method = build_method(run.method, models, run.variant, run.settings)
    figures: dict[str, float | None] = {}
    truth = CocoFile.read(recipe.truth)
    for group in ("touching", "plain", "cluttered", "all"):
        images = [row for row in truth.images if group in (row["split"], "all")]
        ids = {row["id"] for row in images}
        CocoFile(images, truth.categories, [a for a in truth.annotations if a["image_id"] in ids]).write(
            recipe.truth.parent / "part.json"
        )
        part = open_coco_instances(recipe.truth.parent / "part.json", recipe.images)
        s = score_method(method, part, find_semantic_protocol("default"), quiet).scores
        named = {"mIoU": s.mean_iou, "mIoU of things": s.mean_iou_things, "pixel accuracy": s.pixel_accuracy}
        figures |= {f"{group} {k}": None if v is None else round(100 * v, 2) for k, v in named.items()}
    return figures


def test_figures_are_those_of_each_method_by_itself(recipe: Path) -> None:
    plan, files = Recipe.read(recipe), []
    figures = measure_runs(plan, on_progress=quiet, on_found=lambda name, found: files.append(name))
    assert list(figures) == [run.name for run in plan.runs]
    semantic = [run.name for run in plan.runs if run.task == "semantic"]
    for name in semantic:
        assert {k: v for k, v in figures[name].items() if k not in (SECONDS, PARAMETERS)} == alone(plan, name)
    assert files == ["maskclip's regions", "zip"]
    assert figures["zip"]["all AP"] == 100
    assert {"all AP", "plain AP50"} <= figures["maskclip's regions"].keys()
    assert (figures["maskclip"]["all mIoU"] or 0) > 80 > (figures["whole image"]["all mIoU"] or 0)
    assert len({figures[name]["all mIoU"] for name in semantic}) == len(semantic)  # each run has its own objectness


def test_figures_with_exact_objectness(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_module, "build_objectness", lambda name, parts: FakeObjectness())
    figures = measure_runs(Recipe.read(recipe), only=["tokencut"], on_progress=quiet)["tokencut"]
    assert figures["touching mIoU"] == figures["cluttered pixel accuracy"] == 100
    assert figures["cluttered mIoU of things"] is None  # there is nothing but background


def test_the_limit_is_of_each_group(recipe: Path) -> None:
    seen: list[tuple[int, int]] = []
    figures = measure_runs(
        Recipe.read(recipe), limit=1, only=["maskclip"], on_progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(k, 3) for k in range(4)]
    assert {name.split()[0] for name in figures["maskclip"]} == {"touching", "plain", "cluttered", "all"}


def test_runs_that_see_the_same_share_an_encoding(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for kind in (ClipDiy, DenseClip):

        def counted(self: Any, images: Sequence[Image], encode: Any = kind.encode) -> Any:
            calls.append(self.provenance["method"])
            return encode(self, images)

        monkeypatch.setattr(kind, "encode", counted)
    measure_runs(Recipe.read(recipe), only=["maskclip", "maskclip's regions", "tokencut"], on_progress=quiet)
    assert calls == ["maskclip", "clip_diy"] * len(SPLITS)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("method = 'zip'\ntask = 'semantic'", r"expected a task that zip has \(instance, boundary\), got 'semantic'"),
        ("method = 'zip'\ntask = 'semantic'", r"expected a task that zip has \(instance, boundary\), got 'semantic'"),
        (
            "method = 'maskclip'\ntask = 'panoptic'",
            r"expected a task that maskclip has \(instance, semantic, boundary\), got 'panoptic'",
        ),
        ("method = 'clip_diy'\ntask = 'semantic'\nobjectness = 'fond'", r"unknown objectness source 'fond'; did you mean"),
        ("objectness = 'fond'", "unknown objectness source 'fond'"),
        ("method = 'maskclip'\ntask = 'semantic'\nvariant = 'pamir'", r"unknown variant of maskclip 'pamir'; did you mean"),
    ],
)
def test_what_does_not_exist_is_refused_before_any_model(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, run: str, message: str
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(Models, "clip", property(lambda self: loaded.append("clip")))
    plan = Recipe.read(written(tmp_path, f"{RUNS}\n[[run]]\nname = 'wrong'\n{run}\n"))
    with pytest.raises(InputError, match=message):
        measure_runs(plan, on_progress=quiet)
    assert loaded == []


def test_pictures_that_are_missing_are_named(recipe: Path) -> None:
    (recipe.parent / "images" / "a.png").unlink()
    with pytest.raises(InputError, match=r"a\.png among them"):
        measure_runs(Recipe.read(recipe), only=["maskclip"], on_progress=quiet)
