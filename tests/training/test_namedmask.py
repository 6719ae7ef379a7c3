"""NamedMask's training: the folder it leaves, going on where it was stopped, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from tests.support.trainings import curve, quiet, train_in_two
from tests.support.zutis_training import NAMES, write_archive, write_clip
from torch.nn import functional as F

from annofree.errors import InputError, MissingError
from annofree.hub.cards import Card
from annofree.methods.namedmask import NamedMask, open_namedmask
from annofree.structures import Image
from annofree.testing.tolerances import assert_close
from annofree.training.archives.lesson import read_archive
from annofree.training.augment.copy_paste import CopyPaste
from annofree.training.engine.distributed import DistributedContext
from annofree.training.namedmask.recipe import NamedMaskRecipe
from annofree.training.namedmask.train import LabelCriterion, build_network, build_optimizer, collate, draw_scene, fit_namedmask

pytestmark = pytest.mark.usefixtures("one_thread")

TOML = """
archive = "archive"
out = "out"
steps = 6
batch = 2
lr = 1e-3
backbone_lr = 1e-4
log_every = 2
checkpoint_every = 3
world = "emoji"

[scenes]
crop = 32

[network]
backbone = "clip-resnet"
layers = [1, 1, 1, 1]
width = 8
channels = 8
fine = 4
rates = [1, 2, 3]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("namedmask")
    write_archive(folder / "archive")
    (folder / "recipe.toml").write_text(TOML)
    return folder


def recipe_of(home: Path, out: Path, **changes: Any) -> NamedMaskRecipe:
    return replace(NamedMaskRecipe.read(home / "recipe.toml", out=out), **changes)


@pytest.fixture(scope="module")
def trained(home: Path) -> Iterator[Path]:
    fit_namedmask(recipe_of(home, home / "trained", sample_every=4), say=quiet)
    yield home / "trained"


def test_a_few_steps_write_a_folder_that_labels_pixels(home: Path, trained: Path) -> None:
    method = NamedMask(open_namedmask(trained))
    with PIL.Image.open(home / "archive" / "dog-0.png") as picture:
        image = Image(np.asarray(picture), "dog")
    found = method.semantic(image, list(NAMES))
    assert found.labels.shape == (40, 36) and found.names == ("background", *NAMES)
    with PIL.Image.open(trained / "samples" / "000004.png") as image_of_samples:
        assert image_of_samples.size == (3 * 32, 4 * 32)
    assert (trained / "curves.png").exists()


def test_the_card_says_what_it_is_and_the_origins_name_no_place_on_this_machine(home: Path, trained: Path) -> None:
    card = Card.read(trained)
    assert (card.kind, card.family, card.tier, card.world) == ("segmenter", "NamedMask DeepLabv3+", "S1", "emoji")
    assert "9 images, retrieved for 3 names, masks by selfmask" in card.trained_on
    assert card.figures["training steps"] == 6 and card.figures["training cross-entropy"] == curve(trained)[-1]["cross-entropy"]
    origin = json.loads((trained / "training.json").read_text())
    assert origin["masks"] == {"count": 9, "by": "selfmask", "model": {"tier": "S0"}}
    assert str(home) not in (trained / "training.json").read_text() + (trained / "card.json").read_text()


def test_stopped_at_any_step_it_goes_on_to_the_same_curve(home: Path, trained: Path, tmp_path: Path) -> None:
    train_in_two(fit_namedmask, recipe_of(home, tmp_path), tmp_path)
    assert curve(tmp_path) == curve(trained)
    ours, theirs = (open_namedmask(folder).network.state_dict() for folder in (tmp_path, trained))
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


def test_other_settings_or_masks_are_refused(home: Path, trained: Path) -> None:
    with pytest.raises(InputError, match=r"lr was 0\.001, now 0\.002"):
        fit_namedmask(recipe_of(home, trained, lr=2e-3), say=quiet)
    with pytest.raises(InputError, match=r"data was .* now .*min_quality was 0\.0, now 0\.55"):
        fit_namedmask(recipe_of(home, trained, min_quality=0.55), say=quiet)


def test_the_loss_is_that_of_the_written_out_step(home: Path) -> None:
    recipe = recipe_of(home, home / "nowhere")
    archive, masks = read_archive(recipe)
    scenes = CopyPaste(archive, masks, recipe.build_scene_settings())
    assert tuple(scenes.settings.images) == (1, 2)
    network = build_network(recipe, archive.names)[0].eval()
    those = [draw_scene(scenes, 0, i) for i in range(3)]
    found = LabelCriterion(network.config, 255, DistributedContext(), stride=3)(network, collate(those))
    mean, std = torch.tensor(network.config.mean), torch.tensor(network.config.std)
    total, count = torch.zeros(()), 0
    for scene in those:
        logits = network(((torch.tensor(scene.image) / 255 - mean) / std).permute(2, 0, 1)[None])
        labels = torch.from_numpy(scene.semantic)[None, 1::3, 1::3]
        drawn = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
        total = total + F.cross_entropy(drawn, labels, ignore_index=255, reduction="sum")
        count += int((labels != 255).sum())
    assert_close(found["cross-entropy"], total / count, depth="network")


def test_two_groups_learn_at_their_own_rates(home: Path) -> None:
    recipe = recipe_of(home, home / "nowhere")
    network, said, origin = build_network(recipe, NAMES)
    assert (said, origin) == ("all weights are random", {})
    decoder, backbone = build_optimizer(network, recipe).param_groups
    assert (decoder["lr"], backbone["lr"], decoder["weight_decay"]) == (1e-3, 1e-4, 2e-4)
    assert len(decoder["params"]) + len(backbone["params"]) == len(list(network.parameters()))


def test_it_starts_from_the_resnet_of_a_clip() -> None:
    network = {"backbone": "clip-resnet", "layers": [2, 2, 2, 2], "width": 32, "channels": 8, "fine": 4}
    recipe = NamedMaskRecipe(archive=Path("archive"), out=Path("out"), initial="tiny-clip", network=network)
    made, said, origin = build_network(recipe, NAMES)
    assert said.startswith("tiny-clip: took") and origin["name"] == "tiny-clip" and made.config.names == NAMES


def test_it_learns(home: Path, tmp_path: Path) -> None:
    fit_namedmask(recipe_of(home, tmp_path, steps=30, batch=4, lr=1e-2, backbone_lr=1e-2, log_every=10), say=quiet)
    assert curve(tmp_path)[-1]["cross-entropy"] < curve(tmp_path)[0]["cross-entropy"] - 0.05


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exclude": "dog"}, r"expected exclude as a list of names, got the text 'dog'; write \['dog'\]"),
        ({"steps": 0}, "expected steps above 0, got 0"),
        ({"network": {"chanels": 8}}, r"unknown setting of \[network\] 'chanels'; did you mean 'channels'"),
        ({"scenes": {"corp": 8}}, r"unknown setting of \[scenes\] 'corp'; did you mean 'crop'"),
        ({"scenes": {"variant": "oficial"}}, "did you mean 'official'"),
        ({"lr": "fast"}, "lr"),
    ],
)
def test_recipes_that_do_not_serve_are_refused(home: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recipe_of(home, home / "nowhere", **changes)


def test_what_an_archive_lacks_is_refused_and_so_are_weights_that_are_not_there(home: Path, tmp_path: Path) -> None:
    write_archive(tmp_path / "archive", ("dog", "cat"))
    with pytest.raises(InputError, match=r"got none that shows something of 'cup'"):
        fit_namedmask(recipe_of(home, tmp_path / "out", archive=tmp_path / "archive"), say=quiet)
    with pytest.raises(MissingError, match="there is nothing"):
        fit_namedmask(recipe_of(home, tmp_path / "out", initial="weights/dino.pth"), say=quiet)
    write_clip(tmp_path / "clip")
    with pytest.raises(InputError, match="expected the weights of the detector's ResNet"):
        fit_namedmask(recipe_of(home, tmp_path / "out", initial=str(tmp_path / "clip")), say=quiet)
