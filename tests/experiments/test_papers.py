"""Recipes of papers: each is whole and refuses until its data are there; one is run on a miniature of its data."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from annofree.apps.cli.figure_tables import print_reproduction
from annofree.datasets.benchmarks.coco20k import COCO_20K_LIST
from annofree.datasets.benchmarks.unseen import UNSEEN_15
from annofree.datasets.names import COCO_IDS, COCO_NAMES
from annofree.errors import InputError, MissingError
from annofree.evaluation.metrics.instance import evaluate_instances
from annofree.evaluation.metrics.semantic import SemanticScorer
from annofree.evaluation.predict_semantic import score_method
from annofree.evaluation.protocols.instance import INSTANCE_PROTOCOLS, find_instance_protocol
from annofree.evaluation.protocols.semantic import find_semantic_protocol
from annofree.experiments.compare import name_file
from annofree.experiments.papers import PublishedRecipe, _of_labels
from annofree.experiments.reproduce import reproduce
from annofree.features.zutis_network import ZutisConfig, ZutisNetwork
from annofree.features.zutis_weights import save_zutis
from annofree.formats.coco import CocoFile
from annofree.hub.download import Local
from annofree.hub.presets import find_preset
from annofree.methods import components as models_module
from annofree.methods.build import build_method, change_settings
from annofree.methods.components import Models
from annofree.methods.registry import find_method
from annofree.structures import Detections
from annofree.testing.fakes import FakeClip
from annofree.testing.paper_world import draw_paper_scenes

ROOT = Path(__file__).parents[2] / "recipes"
RECIPES = sorted((ROOT / "zutis").glob("*.toml"))
FIGURES = re.compile(
    r"all (class-agnostic )?AP(50|75)?|all images a second|all (mIoU( of size (S|MS|ML|L))?|pixel accuracy|IoU of bird)"
)


def quiet(done: int, total: int) -> None:
    pass


# Each recipe


def test_all_are_there() -> None:
    assert [path.stem for path in RECIPES] == [
        "coca-semantic",
        "coco-20k",
        "coco-semantic",
        "cub",
        "imagenet-s",
        "unseen-15",
        "voc-ablation",
        "voc-encoders",
    ]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_is_whole(path: Path) -> None:
    recipe = PublishedRecipe.read(path)
    for run in recipe.runs:
        entry = find_method(run.method, run.variant)
        change_settings(entry.variants[run.variant], run.settings)
        assert {"clip"} <= find_preset(run.models or recipe.models).find_cards().keys()
        assert bool(run.weights) == ("zutis" in entry.needs)
        assert all(FIGURES.fullmatch(name) for name in (*run.expected, *run.quoted))
        assert run.expected or run.quoted or "drawn, not written" in run.note
        assert run.note or not run.quoted  # why it is not compared


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_says_all_that_is_missing(path: Path, tmp_path: Path) -> None:
    recipe = PublishedRecipe.read(path)
    with pytest.raises(MissingError, match=r"pass --data DIR or set ANNOFREE_DATA; in it are needed") as nowhere:
        recipe.measure(None, on_progress=quiet)
    with pytest.raises(MissingError, match=rf"{path.name} needs what is not in {re.escape(str(tmp_path))}: ") as empty:
        recipe.measure(tmp_path, on_progress=quiet)
    for place in recipe.data.values():
        assert all(f"{place.path} ({place.what})" in str(said.value) for said in (nowhere, empty))
    first, *rest = recipe.data.values()
    (tmp_path / first.path).mkdir(parents=True)
    with pytest.raises(MissingError) as partly:
        recipe.measure(tmp_path, on_progress=quiet)
    assert first.path not in str(partly.value).split("; ") and rest[0].path in str(partly.value)


def test_a_run_needs_its_own_data_only(tmp_path: Path) -> None:
    recipe = PublishedRecipe.read(ROOT / "zutis" / "coco-20k.toml")
    with pytest.raises(MissingError, match="zutis/coco-vit-b-16 ") as said:
        recipe.locate_data(tmp_path, ["ZUTIS, ViT-B/16"])
    assert "coco-vit-b-32" not in str(said.value) and "coco_20k_filenames.txt" in str(said.value)
    with pytest.raises(MissingError) as said:
        recipe.locate_data(tmp_path, ["MaskCLIP, ViT-B/16"])
    assert "zutis/" not in str(said.value).partition(" needs ")[2]


# A miniature of COCO-20K: scenes of paper whose things COCO has names for


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data sets with two networks of random weights, and models that know paper."""
    monkeypatch.setattr(Models, "clip", FakeClip())
    monkeypatch.setattr(models_module, "fetch", lambda cards, **_: [Local(card, Path("nowhere")) for card in cards])
    root = tmp_path / "data"
    (root / "coco" / "train2014").mkdir(parents=True)
    (root / "coco" / "annotations").mkdir()
    file = CocoFile.with_categories(dict(zip(COCO_IDS, COCO_NAMES, strict=True)))
    for scene in (s for s in draw_paper_scenes() if {*s.names} <= {*COCO_NAMES}):
        name = f"COCO_train2014_{scene.image.id}.png".replace(" ", "_")
        PIL.Image.fromarray(scene.image.pixels).save(root / "coco" / "train2014" / name)
        id_ = file.add_image(name, scene.image.size)
        classes = [COCO_NAMES.index(n) for n in scene.names]
        found = Detections.from_masks(scene.masks, classes, [1.0] * len(classes), COCO_NAMES)
        file.add_annotations([{k: v for k, v in row.items() if k != "score"} for row in found.to_coco(id_, COCO_IDS)])
    file.write(root / "coco" / "annotations" / "instances_train2014.json")
    listed = [row["file_name"] for row in file.images][1:]
    (root / "coco" / "coco_20k_filenames.txt").write_text("\n".join(listed))
    torch.manual_seed(0)
    tiny = ZutisConfig(16, 2, 2, 8, 32, 64, queries=5, decoder_layers=1, decoder_heads=2, decoder_ffn=16, mlp_hidden=8)
    for name in ("coco-vit-b-16", "coco-vit-b-32", "seen-65-vit-b-16"):
        save_zutis(ZutisNetwork(tiny), root / "zutis" / name)
    return root


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """COCO-20K's recipe but for the list's hash."""
    text = (ROOT / "zutis" / "coco-20k.toml").read_text(encoding="utf-8")
    (tmp_path / "coco-20k.toml").write_text(text.replace(f'sha256 = "{COCO_20K_LIST}"', ""), encoding="utf-8")
    return tmp_path / "coco-20k.toml"


def test_another_list_is_refused(data: Path) -> None:
    with pytest.raises(InputError, match=r"expected the 19,817 file names .* but its SHA-256 is not 74637e9b4f93"):
        PublishedRecipe.read(ROOT / "zutis" / "coco-20k.toml").measure(data, on_progress=quiet)


def test_a_recipe_from_end_to_end(data: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = reproduce(recipe, data=data, out=tmp_path / "out", device="cpu")
    off = found.off
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())["figures"]
    plan = PublishedRecipe.read(recipe)
    assert list(figures) == [run.name for run in plan.runs]
    assert [line.split(": ")[1].split(" is ")[0] for line in off] == ["all AP", "all AP50", "all AP75"]
    assert all(line.startswith("ZUTIS, ViT-B/16: ") for line in off)
    truth = CocoFile.read(data / "coco" / "annotations" / "instances_train2014.json")
    part = CocoFile(truth.images[1:], truth.categories, [a for a in truth.annotations if a["image_id"] > 1])
    for run in plan.runs[1:3]:
        said = CocoFile.read(tmp_path / "out" / name_file(run.name))
        assert {row["image_id"] for row in said.annotations} <= {row["id"] for row in part.images}
        for view in ("class-aware", "class-agnostic"):
            s = evaluate_instances(part, said, view=view)
            prefix = "all " if view == "class-aware" else f"all {view} "
            for name, value in {"AP": s.ap, "AP50": s.ap50, "AP75": s.ap75, "AR100": s.ar100}.items():
                assert figures[run.name][f"{prefix}{name}"] == round(100 * (value or 0), 2)
    assert figures["MaskCLIP, ViT-B/16"]["all AP50"] > 30
    print_reproduction(found)
    printed = capsys.readouterr().out
    assert "MaskCLIP, ViT-B/16: how the paper scores" in printed and "(5.7)" in printed and "(1.3)" in printed


def test_what_is_limited_is_not_compared(data: Path, recipe: Path) -> None:
    assert reproduce(recipe, data=data, limit=1, only=["ZUTIS, ViT-B/16"], device="cpu").off == ()


def test_runs_and_models_are_named(data: Path, recipe: Path) -> None:
    plan = PublishedRecipe.read(recipe)
    with pytest.raises(InputError, match=r"unknown run 'MaskCLIP'; did you mean 'MaskCLIP, ViT-B/32'"):
        plan.measure(data, only=["MaskCLIP"], on_progress=quiet)
    wrong = replace(plan, runs=(replace(plan.runs[0], settings={"nmss": 1.0}),))
    with pytest.raises(InputError, match=r"unknown setting 'nmss'; did you mean 'nms'"):
        wrong.measure(data, on_progress=quiet)


def test_the_text_of_a_network_is_that_of_its_own_clip(data: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, asked = PublishedRecipe.read(recipe), []

    def noted(method: str, models: Models, *rest: Any) -> Any:
        asked.append((models.preset.name, method))
        return build_method(method, models, *rest)

    monkeypatch.setattr("annofree.methods.build.build_method", noted)
    plan.measure(data, limit=1, device="cpu", on_progress=quiet)
    both = ["openai-vit-b-16+sam-b", "openai-vit-b-32+sam-b"]
    assert asked == [(spec, method) for method in ("zutis", "maskclip") for spec in both]


def test_a_recipe_of_label_maps(data: Path) -> None:
    for name in ("stuffthingmaps/val2017", "val2017"):
        (data / "coco" / name).mkdir(parents=True)
    for number, scene in enumerate(s for s in draw_paper_scenes() if {*s.names} <= {*COCO_NAMES}):
        labels = np.full(scene.image.size, 255, np.uint8)  # unlabelled
        for mask, name in zip(scene.masks, scene.names, strict=True):
            labels[mask] = COCO_IDS[COCO_NAMES.index(name)] - 1
        PIL.Image.fromarray(labels).save(data / "coco" / "stuffthingmaps" / "val2017" / f"{number}.png")
        PIL.Image.fromarray(scene.image.pixels).save(data / "coco" / "val2017" / f"{number}.jpg", quality=95)
    plan = PublishedRecipe.read(ROOT / "zutis" / "coco-semantic.toml")
    run = plan.runs[2]
    by_both = [replace(run, name=other.protocol, protocol=other.protocol) for other in plan.runs[:2]]
    figures = replace(plan, runs=(*plan.runs, *by_both)).measure(data, device="cpu", on_progress=quiet)
    rules = find_semantic_protocol(run.protocol)
    dataset = rules.open_dataset(data / "coco/stuffthingmaps/val2017", data / "coco/val2017")
    method = build_method(run.method, Models(plan.models, "cpu", objectness="none"), run.variant)
    s = score_method(method, dataset, rules, quiet).scores
    assert s.mean_iou is not None and s.mean_iou > 0.3 and s.pixel_accuracy is not None
    assert figures[run.name]["all mIoU"] == round(100 * s.mean_iou, 2)
    assert figures[run.name]["all pixel accuracy"] == round(100 * s.pixel_accuracy, 2)
    assert figures[run.name]["all mIoU of size L"] == (None if s.by_size["L"] is None else round(100 * s.by_size["L"], 2))
    background, void = (figures[other.name]["all pixel accuracy"] or 0 for other in by_both)
    assert void > background + 10  # what is unlabelled is scored by one of the two


def test_one_name_has_its_own_figures() -> None:
    scorer = SemanticScorer(("background", "bird"), background=0)
    scorer.add(np.array([[0, 1, 1, 1]]), np.array([[0, 0, 0, 1]]))
    scorer.add(np.array([[0, 1]]), np.array([[0, 1]]))
    figures = _of_labels(scorer.compute_scores())
    assert (figures["all IoU of bird"], figures["all IoU of bird per image"]) == (50.0, 66.67)


# Unseen classes


def test_all_are_asked_for_but_the_unseen_are_scored(data: Path) -> None:
    places = {"truth": data / "coco/annotations/instances_train2014.json", "images": data / "coco/train2014"}
    places["list"] = data / "coco/coco_20k_filenames.txt"
    vocabularies = []

    class Method:
        def instances(self, image: Any, classes: Any) -> Detections:
            vocabularies.append(classes.names)
            names = classes.names
            mask = torch.ones(2, *image.size, dtype=torch.bool).numpy()
            return Detections.from_masks(mask, [0, names.index("cat")], [0.9, 0.8], names)

    few, many = (find_instance_protocol(name) for name in ("coco-20k-unseen", "coco-20k-unseen-of-80"))
    method: Any = Method()
    truth = few.read_truth(places)
    of_few, of_many = (rules.predict(method, truth, places, quiet) for rules in (few, many))
    assert set(vocabularies[0]) == set(UNSEEN_15) and vocabularies[-1] == COCO_NAMES
    cat, first = (COCO_IDS[COCO_NAMES.index(name)] for name in ("cat", "airplane"))
    assert {row["category_id"] for row in of_few.annotations} == {cat, first}
    assert {row["category_id"] for row in of_many.annotations} == {cat}  # that of a person does not count
    assert {row["name"] for row in few.select_counted(truth).categories} == set(UNSEEN_15)
    assert few.compute_scores(truth, of_few)["class-aware"].ap is None  # paper has no unseen class
    assert len(truth.images) == len(CocoFile.read(places["truth"]).images) - 1


def test_unknown_protocols_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown protocol 'coco-20'; did you mean 'coco-20k'"):
        find_instance_protocol("coco-20")
    assert all(name == rules.name for name, rules in INSTANCE_PROTOCOLS.items())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("tolerance = 0.5", "tolerence = 0.5"), "but it is not one: .*tolerence"),
        (('title = "', "title = "), "but it is not one"),
        (('protocol = "coco-20k"', 'protocol = "coco-20"'), "unknown protocol 'coco-20'"),
        (("[data.list]", "[data.lists]"), "expected the data of 'ZUTIS, ViT-B/16' in coco-20k.toml, got no list"),
        (('weights = "b16"', 'weights = "b17"'), "got no b17"),
        (('name = "ZUTIS, ViT-B/32"', 'name = "ZUTIS, ViT-B/16"'), "each with a name of its own"),
    ],
)
def test_what_is_no_recipe_is_refused(recipe: Path, change: tuple[str, str], why: str) -> None:
    recipe.write_text(recipe.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    with pytest.raises(InputError, match=why):
        PublishedRecipe.read(recipe)
    with pytest.raises(InputError, match="cannot be read"):
        PublishedRecipe.read(recipe.parent / "none.toml")
