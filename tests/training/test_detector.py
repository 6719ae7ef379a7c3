"""Training a detector: recipes, what it starts from, stopping and going on, several processes, and the folder it leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import save_file
from tests.support.detector_training import NAMES, TOML, write_labels
from tests.support.trainings import curve, quiet, train_in_two
from tests.support.two_processes import assert_same_curves, by_two_processes
from torch import nn

from annofree.datasets.emoji.world import CATEGORIES
from annofree.datasets.labeled import Labeled
from annofree.detectors.checkpoint import load_detector, save_detector
from annofree.detectors.types import DetectionTargets
from annofree.errors import InputError, MissingError
from annofree.hub.cards import Card
from annofree.methods.build import MethodSpec
from annofree.structures import Image
from annofree.training.augment.detection_scenes import DetectionScenes
from annofree.training.detector.finetune import build_tuning_recipe
from annofree.training.detector.init import list_class_layers, start_network
from annofree.training.detector.recipe import DetectorRecipe
from annofree.training.detector.train import (
    Batch,
    SceneDraw,
    build_optimizer,
    choose_weighing,
    collate,
    compute_losses,
    fit_detector,
    read_labels,
)
from annofree.training.detector.tuning_schedule import SCHEDULES
from annofree.training.engine.lr_schedules import Poly, Stairs, Warmed

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detector")
    write_labels(folder)
    (folder / "recipe.toml").write_text(TOML)
    return folder


def recipe_of(home: Path, out: Path, **changes: Any) -> DetectorRecipe:
    return replace(DetectorRecipe.read(home / "recipe.toml", out=out), **changes)


@pytest.fixture(scope="module")
def trained(home: Path) -> Path:
    fit_detector(recipe_of(home, home / "trained", sample_every=4), say=quiet)
    return home / "trained"


# The folder


def test_a_few_steps_write_a_folder_that_is_a_method(home: Path, trained: Path) -> None:
    method = MethodSpec(str(trained), "all", device="cpu").build()
    assert method.origin.names == NAMES
    with PIL.Image.open(home / "pictures" / "0.png") as image:
        found = method.instances(Image(np.asarray(image), "0"), list(NAMES))
    assert found.size == (48, 56) and len(found) and set(found.labels) <= set(NAMES)


def test_the_card_says_what_it_is_and_the_origins_name_no_place_on_this_machine(home: Path, trained: Path) -> None:
    card = Card.read(trained)
    assert (card.kind, card.family, card.world) == ("segmenter", "Detector Cascade Mask R-CNN clip-resnet", "emoji")
    assert (card.tier, card.licence) == ("S4", "unknown")  # labels that tell nothing are a person's
    assert card.trained_on == "6 images with 12 things, labelled by a person, or whoever made the file"
    assert card.figures["training steps"] == 6 and card.figures["training loss"] == curve(trained)[-1]["loss"]
    origin = json.loads((trained / "training.json").read_text())
    assert origin["labels"]["names"] == list(NAMES) and origin["recipe"]["lr"] == 0.02
    assert str(home) not in (trained / "training.json").read_text() + (trained / "card.json").read_text()


def test_curves_and_samples_are_drawn(trained: Path) -> None:
    with PIL.Image.open(trained / "curves.png") as image:
        assert image.size[0] == 920
    with PIL.Image.open(trained / "samples" / "000004.png") as image:
        assert image.size == (2 * 560, 4 * 480)  # four images, small ones enlarged


@pytest.mark.parametrize(
    ("info", "tier", "expected"),
    [
        ({"run": {"provenance": {"method": "zip"}, "models": [{"tier": "S1"}, {"tier": "S2"}]}}, "", "S2"),
        ({"run": {"models": [{"tier": "S1"}]}}, "S3", "S3"),
        ({}, "S0", "S0"),
    ],
)
def test_the_tier_is_the_highest_of_all_that_took_part(tmp_path: Path, info: Any, tier: str, expected: str) -> None:
    write_labels(tmp_path, info)
    (tmp_path / "recipe.toml").write_text(TOML)
    fit_detector(recipe_of(tmp_path, tmp_path / "out", steps=1, tier=tier), say=quiet)
    card = Card.read(tmp_path / "out")
    assert card.tier == expected
    assert card.trained_on.endswith("the method zip" if "zip" in str(info) else "whoever made the file")


def test_a_moving_average_is_what_is_written(home: Path, trained: Path, tmp_path: Path) -> None:
    fit_detector(recipe_of(home, tmp_path, ema=0.9), say=quiet)
    assert curve(tmp_path) == curve(trained)
    one, other = load_detector(tmp_path).state_dict(), load_detector(trained).state_dict()
    assert any(not torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize(
    ("kind", "more"),
    [("mask_rcnn", {}), ("mask2former", {"channels": 32, "queries": 4, "pixel_layers": 1, "query_layers": 2, "ffn": 16})],
)
def test_each_kind_learns_and_is_written(home: Path, tmp_path: Path, kind: str, more: dict[str, Any]) -> None:
    recipe = recipe_of(home, tmp_path, steps=1, lr=1e-4, optimiser="adamw", backbone_rate=0.1, max_norm=0.01)
    fit_detector(replace(recipe, network={**recipe.network, "kind": kind, **more}), say=quiet)
    assert Card.read(tmp_path).family.endswith("Mask R-CNN clip-resnet" if kind == "mask_rcnn" else "Mask2Former clip-resnet")
    found = (
        MethodSpec(str(tmp_path), "all", device="cpu").build().instances(Image(np.zeros((40, 50, 3), np.uint8)), list(NAMES))
    )
    assert found.size == (40, 50)
    again = replace(recipe, initial=str(tmp_path), network={}, agnostic=True, out=tmp_path / "agnostic")
    network, said, _ = start_network(again, ("object",))
    assert network.config.kind == kind and "class layers are made anew" in said


# Stopping and going on


def test_stopped_at_any_step_it_goes_on_to_the_same_curve(home: Path, trained: Path, tmp_path: Path) -> None:
    train_in_two(fit_detector, recipe_of(home, tmp_path), tmp_path)
    assert curve(tmp_path) == curve(trained)
    ours, theirs = load_detector(tmp_path).state_dict(), load_detector(trained).state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


def test_other_settings_or_labels_are_refused(home: Path, trained: Path) -> None:
    with pytest.raises(InputError, match=r"lr was 0\.02, now 0\.03"):
        fit_detector(recipe_of(home, trained, lr=0.03), say=quiet)
    with pytest.raises(InputError, match=r"data was .* now .*fraction was 1\.0, now 0\.5"):
        fit_detector(recipe_of(home, trained, fraction=0.5), say=quiet)


def test_two_processes_learn_what_one_does(home: Path, tmp_path: Path) -> None:
    """Every anchor and box is learned from, so none is drawn, and boxes hardly move, so that rounding decides of none."""
    recipe = recipe_of(home, tmp_path / "start")
    every = {"rpn_before": [5000, 5000], "rpn_after": [5000, 5000], "rpn_nms": 1.0, "roi_batch": 5000}
    network = start_network(replace(recipe, network={**recipe.network, **every}), NAMES).network
    for name, weight in network.named_parameters():
        if "bbox_pred" in name or "move" in name:
            nn.init.zeros_(weight)
    save_detector(network, tmp_path / "start")
    how = {"initial": str(tmp_path / "start"), "network": {}, "steps": 3, "decay_at": (), "warmup": 0, "log_every": 1}
    fit_detector(recipe_of(home, tmp_path / "one", **how), say=quiet)
    by_two_processes(lambda: fit_detector(recipe_of(home, tmp_path / "two", **how), say=quiet))
    assert_same_curves(curve(tmp_path / "two"), curve(tmp_path / "one"))


# What is learned


def test_it_learns(home: Path, tmp_path: Path) -> None:
    recipe = recipe_of(home, tmp_path, steps=25, decay_at=(), lr=0.05, scenes={"sides": [48], "copy_paste": 0.0})
    labeled, names, ids = read_labels(recipe)
    draw = SceneDraw(DetectionScenes(labeled, recipe.build_scene_settings()), 99, ids)
    batch = collate([draw(n) for n in range(6)])
    before = start_network(recipe, names).network.train()
    fit_detector(recipe, say=quiet)
    after = load_detector(tmp_path).train()
    with torch.no_grad():
        first, last = (float(sum(compute_losses(network, batch).values())) for network in (before, after))
    assert last < 0.75 * first


def test_names_may_be_chosen_and_the_others_are_background(home: Path, tmp_path: Path) -> None:
    recipe = recipe_of(home, tmp_path, names=["cup", "dog"], steps=1)
    labeled, names, ids = read_labels(recipe)
    assert names == ("cup", "dog") and ids.tolist() == [1, -1, 0]
    scenes = DetectionScenes(labeled, recipe.build_scene_settings())
    for number in range(8):
        pixels, target = SceneDraw(scenes, recipe.seed, ids)(number)
        whole = scenes.make_scene(np.random.default_rng((recipe.seed, number)))
        assert torch.equal(pixels, whole.pixels)
        kept = whole.target.labels != 1
        assert torch.equal(target.masks, whole.target.masks[kept])
        assert [names[k] for k in target.labels] == [labeled.names[k] for k in whole.target.labels[kept]]
    fit_detector(recipe, say=quiet)
    assert load_detector(tmp_path).config.names == ("cup", "dog")
    with pytest.raises(InputError, match="unknown name among the labels 'cupp'; did you mean 'cup'"):
        read_labels(replace(recipe, names=("cupp",)))


@pytest.fixture
def scored(home: Path, tmp_path: Path) -> Path:
    """The labels, every other one of which is sure to a half."""
    held = json.loads((home / "labels.json").read_text())
    for k, row in enumerate(held["annotations"]):
        row["score"] = 0.5 if k % 2 else 1.0
    (tmp_path / "labels.json").write_text(json.dumps(held))
    return tmp_path / "labels.json"


def test_labels_weigh_by_their_scores_and_together_as_much_as_before(home: Path, scored: Path, tmp_path: Path) -> None:
    recipe = recipe_of(home, tmp_path / "out", labels=scored, images=home / "pictures", score_weights=2.0, steps=1)
    labeled, _, ids = read_labels(recipe)
    weighing = choose_weighing(recipe, labeled, "cascade")
    mean = np.mean(labeled.scores.astype(np.float64) ** 2)
    assert weighing is not None and weighing[0] == 2.0 and weighing[1] == pytest.approx(mean) and 0.25 < mean < 1
    scenes = DetectionScenes(labeled, recipe.build_scene_settings())
    seen = {round(w * mean, 4) for n in range(6) for w in SceneDraw(scenes, 0, ids, weighing)(n)[1].weights.tolist()}  # type: ignore[union-attr]
    assert seen == {0.25, 1.0} and SceneDraw(scenes, 0, ids)(0)[1].weights is None
    fit_detector(recipe, say=quiet)
    assert (tmp_path / "out" / "detector.json").is_file()


def test_weights_are_off_and_another_network_than_a_cascade_has_none(home: Path, scored: Path, tmp_path: Path) -> None:
    plain = recipe_of(home, tmp_path)
    assert plain.score_weights == 0 and "score_weights" not in plain.resume_key()
    assert choose_weighing(plain, read_labels(plain)[0], "mask_rcnn") is None
    weighed = replace(plain, score_weights=1.0)
    assert weighed.resume_key() == plain.resume_key() | {"score_weights": 1.0}
    with pytest.raises(InputError, match="expected score_weights of 0 for a mask_rcnn, got 1; a cascade alone"):
        choose_weighing(weighed, read_labels(plain)[0], "mask_rcnn")
    with pytest.raises(InputError, match="score_weights"):
        replace(plain, score_weights=-1.0)


def test_all_names_may_be_one_of_a_share_of_the_pictures(home: Path, tmp_path: Path) -> None:
    recipe = recipe_of(home, tmp_path, agnostic=True, fraction=0.5)
    labeled, names, ids = read_labels(recipe)
    assert (names, ids.tolist(), len(labeled)) == (("object",), [0], 3)
    other = read_labels(replace(recipe, split_seed=1))[0]
    assert labeled.ids == Labeled.read(recipe.labels, recipe.images, fraction=0.5).ids != other.ids


def test_groups_of_the_optimiser(home: Path) -> None:
    recipe = recipe_of(home, home / "nowhere", head_rate=4.0, backbone_rate=0.1)
    network = start_network(recipe, NAMES).network
    optimizer = build_optimizer(network, recipe)
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert {name: (g["lr"], g["weight_decay"]) for name, g in groups.items()} == {
        "resnet": (pytest.approx(0.002), 5e-5),
        "resnet norms": (pytest.approx(0.002), 0.0),
        "weights": (0.02, 5e-5),
        "weights norms": (0.02, 0.0),
        "heads": (0.08, 5e-5),
    }
    names = {id(weight): name for name, weight in network.named_parameters()}
    held = {name: {names[id(weight)] for weight in group["params"]} for name, group in groups.items()}
    assert sum(map(len, held.values())) == len(names)
    assert "stages.0.move.bias" in held["heads"] and "backbone.body.conv1.weight" in held["resnet"]
    assert list_class_layers(network.config) <= held["heads"]
    norms = {f"{n}.{p}" for n, m in network.named_modules() if isinstance(m, nn.GroupNorm) for p in ("weight", "bias")}
    assert held["weights norms"] | held["resnet norms"] == norms
    assert isinstance(optimizer, torch.optim.SGD) and all(g["momentum"] == 0.9 for g in groups.values())
    plain = build_optimizer(network, replace(recipe, head_rate=1.0, backbone_rate=1.0, optimiser="adamw"))
    assert isinstance(plain, torch.optim.AdamW) and [g["name"] for g in plain.param_groups] == ["weights", "weights norms"]


@pytest.mark.parametrize("kind", ["cascade", "mask_rcnn"])
def test_a_share_without_things_still_gives_every_weight_a_gradient(home: Path, kind: str) -> None:
    """Several processes wait for the gradient of each weight from each of them."""
    recipe = recipe_of(home, home / "nowhere")
    network = start_network(replace(recipe, network={**recipe.network, "kind": kind}), NAMES).network.train()
    nothing = DetectionTargets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0, 48, 64, dtype=torch.bool))
    losses = compute_losses(network, Batch([torch.zeros(3, 48, 64, dtype=torch.uint8)], [nothing]))
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


def test_workers_draw_the_same_scenes(home: Path, trained: Path, tmp_path: Path) -> None:
    fit_detector(recipe_of(home, tmp_path, steps=2, decay_at=(4,), workers=1), say=quiet)
    assert curve(tmp_path) == curve(trained)[:1]


# Where it starts


def test_it_goes_on_with_a_detector(home: Path, trained: Path, tmp_path: Path) -> None:
    recipe = recipe_of(home, tmp_path, initial=str(trained), network={})
    network, said, origin = start_network(recipe, NAMES)
    assert said == "trained: all weights are taken" and origin["name"] == "own-detector" and network.config.width == 8
    saved = load_detector(trained).state_dict()
    assert all(torch.equal(v, saved[k]) for k, v in network.state_dict().items())
    fit_detector(replace(recipe, steps=1), say=quiet)
    assert json.loads((tmp_path / "training.json").read_text())["initial"]["name"] == "own-detector"


@pytest.mark.parametrize("names", [("dog", "cat"), ("cat", "dog", "cup"), ("object",)])
def test_other_names_make_the_class_layers_anew_and_it_says_so(home: Path, trained: Path, names: tuple[str, ...]) -> None:
    recipe = recipe_of(home, home / "nowhere", initial=str(trained), network={})
    network, said, _ = start_network(recipe, names)
    saved, layers = load_detector(trained).state_dict(), list_class_layers(network.config)
    assert layers == {
        *(f"stages.{i}.score.{part}" for i in range(3) for part in ("weight", "bias")),
        *(f"mask.predictor.mask_fcn_logits.{part}" for part in ("weight", "bias")),
    }
    for name, weight in network.state_dict().items():
        same = weight.shape == saved[name].shape and torch.equal(weight, saved[name])
        assert same is (name not in layers) or name.endswith("bias"), name
    count = "'object' alone" if len(names) == 1 else f"{len(names)} names"
    assert said.startswith(f"trained: it knew 3 names and is to learn {count}, so its class layers are made anew: ")
    assert said.endswith(" weights are taken, 8 start anew")


def test_the_weights_of_a_resnet_are_taken(home: Path, tmp_path: Path) -> None:
    donor = start_network(recipe_of(home, tmp_path, seed=5), NAMES).network
    state = {f"visual.{k.removeprefix('backbone.body.')}": v for k, v in donor.state_dict().items() if "backbone.body" in k}
    save_file(state, tmp_path / "clip.safetensors")
    torch.save({"epoch": 3, "teacher": state}, tmp_path / "clip.pth")
    (tmp_path / "recipe.toml").write_text(TOML.replace("steps", 'initial = "clip.safetensors"\nsteps'))
    recipe = DetectorRecipe.read(tmp_path / "recipe.toml")
    assert recipe.initial == str(tmp_path / "clip.safetensors")
    for place in (recipe.initial, str(tmp_path / "clip.pth")):
        network, said, origin = start_network(replace(recipe, initial=place), NAMES)
        assert said.startswith(f"{Path(place).name}: took {len(state)} weights") and list(origin["sha256"]) == [
            Path(place).name
        ]
        assert torch.equal(network.state_dict()["backbone.body.conv1.weight"], state["visual.conv1.weight"])


def test_starts_from_a_detector_by_the_name_of_its_model(home: Path) -> None:
    network, said, origin = start_network(
        recipe_of(home, home, initial="tiny-detector", network={}), tuple(CATEGORIES.values())
    )
    assert said == "tiny-detector: all weights are taken" and origin["name"] == "tiny-detector"
    assert len(network.config.names) == 65


def test_a_model_is_found_by_its_name(home: Path) -> None:
    sizes = {"layers": [1, 1, 1, 1], "width": 8, "backbone": "clip-resnet"}
    with pytest.raises(InputError, match="expected the weights of the detector's ResNet"):
        start_network(recipe_of(home, home, initial="tiny-clip", network=sizes), NAMES)
    with pytest.raises(InputError, match="unknown model 'tiny-clipp'; did you mean 'tiny-clip'"):
        start_network(recipe_of(home, home, initial="tiny-clipp"), NAMES)


def test_weights_that_are_nowhere_are_told(home: Path, tmp_path: Path) -> None:
    for text in ("runs/none", "none.pth"):
        (tmp_path / "recipe.toml").write_text(TOML.replace("steps", f'initial = "{text}"\nsteps'))
        recipe = DetectorRecipe.read(tmp_path / "recipe.toml")
        assert recipe.initial == str(tmp_path / text)
        with pytest.raises(MissingError, match=f"expected a detector's folder or the weights of a ResNet at .*{text}"):
            start_network(recipe, NAMES)
    (tmp_path / "recipe.toml").write_text(TOML.replace("steps", 'initial = "open_clip:RN50/openai"\nsteps'))
    assert DetectorRecipe.read(tmp_path / "recipe.toml").initial == "open_clip:RN50/openai"


def test_the_network_follows_from_the_seed_and_leaves_the_callers_generator_alone(home: Path) -> None:
    before = torch.get_rng_state()
    one, two, other = (start_network(recipe_of(home, home, seed=seed), NAMES).network.state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)


# The recipe


def test_a_recipe_is_read_relative_to_its_file(home: Path) -> None:
    recipe = DetectorRecipe.read(home / "recipe.toml")
    assert (recipe.labels, recipe.images, recipe.out) == (home / "labels.json", home / "pictures", home / "out")
    assert recipe.schedule == Warmed(Stairs((4,), 0.2), 2, 0.001)
    changed = DetectorRecipe.read(home / "recipe.toml", out=Path("elsewhere"), labels=None)
    assert changed.out == Path("elsewhere") and changed.labels == recipe.labels


def test_what_is_not_given_is_zips() -> None:
    recipe = DetectorRecipe(Path("labels"), Path("out"))
    assert (recipe.steps, recipe.batch, recipe.lr, recipe.momentum, recipe.weight_decay) == (160_000, 16, 0.005, 0.9, 5e-5)
    assert recipe.schedule(0.005, 79_999, 160_000) == 0.005 and recipe.schedule(0.005, 80_000, 160_000) == 0.001
    assert recipe.build_scene_settings().paste_scale == (0.3, 1.0) and recipe.build_scene_settings().copy_paste == 1


def test_a_schedule_follows_the_steps() -> None:
    recipe = DetectorRecipe(Path("labels"), Path("out")).rescaled(1600)
    assert (recipe.steps, recipe.decay_at, recipe.warmup) == (1600, (800,), 10)


def test_warming_up_is_a_straight_line_to_any_schedule() -> None:
    schedule = Warmed(Poly(power=1.0, floor=0.0), warmup=10, factor=0.2)
    for step in range(20):
        rise = 0.2 * (1 - step / 10) + step / 10 if step < 10 else 1.0
        assert schedule(3.0, step, 20) == pytest.approx(3.0 * (1 - step / 20) * rise)
    assert Warmed(Stairs((5,)), warmup=0)(1.0, 0, 9) == 1.0


WRONG: Mapping[str, tuple[str, str]] = {
    "near": ("gama = 0.1", "unknown field of the recipe recipe.toml 'gama'; did you mean 'gamma'"),
    "network": ("[network]\nchanels = 3", r"unknown setting of \[network\] 'chanels'; did you mean 'channels'"),
    "names": ("[network]\nnames = ['a']", r"unknown setting of \[network\] 'names'"),
    "scenes": ("[scenes]\nside = 3", r"unknown setting of \[scenes\] 'side'; did you mean 'sides'"),
    "range": ("[scenes]\nflip = 3", "expected shares from 0 to 1, .* got flip 3"),
    "kind": ("[scenes]\nflip = 'no'", r"expected flip of \[scenes\] as a number"),
    "text": ("steps = 'many'", "expected steps as a whole number, got 'many'"),
    "list": ("decay_at = 5", "expected decay_at as a list of whole numbers, got 5"),
    "listed": ("decay_at = [5.5]", r"expected decay_at as a list of whole numbers, got \[5\.5\]"),
    "name": ("names = 'dog'", "expected names as a list of names, got 'dog'"),
    "zero": ("batch = 0", "expected batch above 0, got 0"),
    "more": ("fraction = 2.0", "expected fraction up to 1, got 2"),
    "optimiser": ("optimiser = 'sdg'", "unknown optimiser 'sdg'; did you mean 'sgd'"),
    "tier": ("tier = 'S7'", "unknown tier 'S7'"),
    "toml": ("steps = ", "expected TOML in a recipe"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_recipes_say_what_is_wrong(tmp_path: Path, case: str) -> None:
    text, message = WRONG[case]
    (tmp_path / "recipe.toml").write_text(f'labels = "a"\nout = "o"\n{text}\n')
    with pytest.raises(InputError, match=message):
        DetectorRecipe.read(tmp_path / "recipe.toml")


def test_a_recipe_without_labels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("steps = 3")
    with pytest.raises(InputError, match="expected labels, out in the recipe"):
        DetectorRecipe.read(tmp_path / "recipe.toml")


# Tuning


@pytest.mark.parametrize(
    ("fraction", "steps", "decay_at", "warmup", "lr", "head_rate"),
    [
        (0.01, 3600, (2400, 3200), 1000, 0.04, 4.0),
        (0.05, 4500, (3000, 4000), 1000, 0.04, 4.0),
        (0.07, 9000, (6000, 8000), 0, 0.04, 4.0),
        (0.3, 27_000, (18_000, 24_000), 0, 0.04, 4.0),
        (1.0, 90_000, (60_000, 80_000), 0, 0.02, 2.0),
    ],
)
def test_the_schedule_is_that_of_the_share(
    trained: Path, fraction: float, steps: int, decay_at: tuple[int, ...], warmup: int, lr: float, head_rate: float
) -> None:
    recipe = build_tuning_recipe(trained, Path("labels"), Path("out"), fraction)
    assert (recipe.steps, recipe.decay_at, recipe.warmup, recipe.lr) == (steps, decay_at, warmup, lr)
    assert (recipe.head_rate, recipe.gamma, recipe.weight_decay, recipe.fraction) == (head_rate, 0.1, 1e-4, fraction)
    short = build_tuning_recipe(trained, Path("labels"), Path("out"), fraction, steps=steps // 10, batch=4)
    assert short.steps == steps // 10 and short.decay_at == tuple(at // 10 for at in decay_at)
    assert short.lr == pytest.approx(lr / 4) and build_tuning_recipe(trained, Path("a"), Path("b"), batch=4, lr=0.7).lr == 0.7


def test_nothing_is_dropped_of_a_persons_labels_and_gradients_are_bounded(trained: Path) -> None:
    recipe = build_tuning_recipe(trained, Path("labels"), Path("out"))
    assert recipe.network == {"drop_loss": 0.0} and recipe.max_norm == 1


def test_scenes_are_scaled_to_the_detector(trained: Path) -> None:
    settings = build_tuning_recipe(trained, Path("labels"), Path("out")).build_scene_settings()
    assert settings.sides == (38, 40, 42, 44, 46, 48) and settings.longest == 80 and settings.copy_paste == 0
    assert list(SCHEDULES) == sorted(SCHEDULES)


def test_what_cannot_be_tuned(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a share of the images over 0, up to 1, got 0"):
        build_tuning_recipe(trained, Path("labels"), tmp_path, 0)
    with pytest.raises(MissingError, match="expected a detector's folder"):
        build_tuning_recipe(tmp_path, Path("labels"), tmp_path)
