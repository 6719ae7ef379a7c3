import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from tests.support.trainings import curve, quiet, train_in_two
from tests.support.two_processes import assert_same_curves, by_two_processes
from tests.support.zutis_training import NAMES, SIDE, TOML, write_archive, write_clip
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError
from annofree.features.clip import Clip
from annofree.features.zutis_network import ZutisNetwork
from annofree.features.zutis_weights import load_zutis
from annofree.hub.cards import Card
from annofree.methods.zutis import Zutis
from annofree.ops.rle import encode_rle
from annofree.retrieval.archive import Archive, read_masks
from annofree.structures import Image, Vocabulary
from annofree.testing.tolerances import assert_close
from annofree.training.archives.lesson import compute_fingerprint, read_archive
from annofree.training.augment.copy_paste import VARIANTS, CopyPaste
from annofree.training.engine.distributed import DistributedContext
from annofree.training.zutis.recipe import ZutisRecipe
from annofree.training.zutis.scene_pool import ScenePool, TenthTeller, keep_pool
from annofree.training.zutis.train import (
    Batch,
    ZutisCriterion,
    build_network,
    build_optimizer,
    collate,
    draw_scene,
    encode_class_texts,
    find_clip,
    fit_zutis,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zutis")
    write_clip(folder / "clip")
    write_archive(folder / "archive")
    (folder / "recipe.toml").write_text(TOML)
    return folder


def recipe_of(home: Path, out: Path, **changes: Any) -> ZutisRecipe:
    return replace(ZutisRecipe.read(home / "recipe.toml", out=out), **changes)


@pytest.fixture(scope="module")
def trained(home: Path) -> Path:
    fit_zutis(recipe_of(home, home / "trained", sample_every=4), say=quiet)
    return home / "trained"


# The folder


def test_a_few_steps_write_a_folder_that_segments(home: Path, trained: Path) -> None:
    network, clip = load_zutis(trained), Clip(home / "clip")
    assert network.config.names == NAMES and network.config.queries == 4 and network.side == 32
    method = Zutis(network, clip)
    with PIL.Image.open(home / "archive" / "dog-0.png") as picture:
        image = Image(np.asarray(picture), "dog")
    labels = method.semantic(image, list(NAMES))
    assert labels.labels.shape == (40, 36)
    assert set(method.instances(image, list(NAMES)).class_ids) <= {0, 1, 2}


def test_the_card_says_what_it_is_and_the_origins_name_no_place_on_this_machine(home: Path, trained: Path) -> None:
    card = Card.read(trained)
    assert (card.kind, card.tier, card.world, card.licence) == ("segmenter", "S1", "emoji", "unknown")
    assert "9 images, retrieved for 3 names, masks by selfmask" in card.trained_on
    assert card.figures["training steps"] == 6 and card.figures["training scenes"] == 12
    last = curve(trained)[-1]
    for name in ("cross-entropy", "dice", "bce"):
        assert card.figures[f"training {name}"] == last[name]
    origin = json.loads((trained / "training.json").read_text())
    assert origin["masks"] == {"count": 9, "by": "selfmask", "model": {"tier": "S0"}}
    assert origin["archive"]["about"] == {"index": "index", "k": 3}
    assert origin["recipe"]["lr"] == 1e-3 and origin["clip"]["name"] == "clip"
    assert str(home) not in (trained / "training.json").read_text() + (trained / "card.json").read_text()


def test_curves_and_samples_are_drawn(trained: Path) -> None:
    with PIL.Image.open(trained / "curves.png") as image:
        assert image.size[0] == 920
    with PIL.Image.open(trained / "samples" / "000004.png") as image:
        assert image.size == (2 * 512, 4 * 512)  # small scenes are enlarged


def test_masks_of_a_higher_tier_raise_that_of_the_card(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "archive", tmp_path / "archive")
    (tmp_path / "archive" / "masks-about.json").write_text('{"by": "sam", "model": {"name": "S4", "tier": "S2"}}')
    fit_zutis(recipe_of(home, tmp_path / "out", archive=tmp_path / "archive", steps=1), say=quiet)
    assert Card.read(tmp_path / "out").tier == "S2"


# Stopping and going on


def test_stopped_at_any_step_it_goes_on_to_the_same_curve(home: Path, trained: Path, tmp_path: Path) -> None:
    train_in_two(fit_zutis, recipe_of(home, tmp_path), tmp_path)
    assert curve(tmp_path) == curve(trained)
    ours, theirs = load_zutis(tmp_path).state_dict(), load_zutis(trained).state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


def test_other_settings_or_masks_are_refused(home: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lr was 0\.001, now 0\.002; go on|lr was 0\.001, now 0\.002\)"):
        fit_zutis(recipe_of(home, trained, lr=2e-3), say=quiet)
    with pytest.raises(InputError, match=r"data was .* now .*min_quality was 0\.0, now 0\.55"):
        fit_zutis(recipe_of(home, trained, min_quality=0.55), say=quiet)
    fit_zutis(recipe_of(home, trained, workers=0, name="another", log_every=1), say=quiet)  # of no matter to the curve
    assert Card.read(trained).name == "another"


def test_two_processes_learn_what_one_does(home: Path, trained: Path, tmp_path: Path) -> None:
    recipe = recipe_of(home, tmp_path)
    by_two_processes(lambda: fit_zutis(recipe, say=quiet))
    assert_same_curves(curve(tmp_path), curve(trained))
    assert Card.read(tmp_path).name == "own-zutis"


# What is learned


def parts(home: Path, **changes: Any) -> tuple[ZutisRecipe, ZutisNetwork, CopyPaste, Tensor]:
    recipe = recipe_of(home, home / "nowhere", **changes)
    archive, masks = read_archive(recipe)
    scenes = CopyPaste(archive, masks, recipe.build_scene_settings())
    local = find_clip(recipe.clip)
    words = encode_class_texts(Clip(local.folder).with_prompts(recipe.templates), recipe, archive.names)
    return recipe, build_network(local, archive.names, recipe), scenes, words


def gradients(network: ZutisNetwork, loss: Tensor) -> tuple[bool, bool]:
    """Whether the encoder and whether the rest get any gradient that is not exactly zero."""
    network.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    own = {id(p) for p in network.encoder.parameters()}
    given = [(id(p) in own, p.grad is not None and bool(p.grad.any())) for p in network.parameters()]
    return any(g for mine, g in given if mine), any(g for mine, g in given if not mine)


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_each_loss_reaches_only_what_is_its_own(home: Path, stop_gradient: bool) -> None:
    _, network, scenes, words = parts(home)
    network.config = replace(network.config, stop_gradient=stop_gradient)
    lesson = ZutisCriterion(network, words, 255, 1.0, DistributedContext())
    batch = collate([draw_scene(scenes, 0, i) for i in range(3)])
    losses = lesson(network, batch)
    assert gradients(network, losses["cross-entropy"]) == (True, False)
    losses = lesson(network, batch)
    assert gradients(network, losses["dice"] + losses["bce"]) == (not stop_gradient, True)


def test_a_stride_compares_every_so_many_pixels(home: Path) -> None:
    _, network, scenes, words = parts(home)
    batch = collate([draw_scene(scenes, 0, i) for i in range(3)])
    coarse = Batch(batch.pixels, batch.labels[:, 1::3, 1::3], [i[:, 1::3, 1::3] for i in batch.instances])
    strided, whole = (
        ZutisCriterion(network, words, 255, 1.0, DistributedContext(), stride=3),
        ZutisCriterion(network, words, 255, 1.0, DistributedContext()),
    )
    for name, loss in strided(network, batch).items():
        assert_close(loss, whole(network, coarse)[name])


def test_the_losses_are_those_of_the_written_out_step(home: Path) -> None:
    _, network, scenes, words = parts(home)
    those = [draw_scene(scenes, 0, i) for i in range(3)]
    found = ZutisCriterion(network, words, 255, 2.0, DistributedContext())(network, collate(those))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    named, drawn, pixels = torch.zeros(()), torch.zeros(()), 0
    for scene in those:
        out = network(((torch.tensor(scene.image) / 255 - mean) / std).permute(2, 0, 1)[None])
        up = F.interpolate(out.features, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        logits = torch.einsum("kd,bdhw->bkhw", words, up)
        labels = torch.from_numpy(scene.semantic)[None]
        named = named + F.cross_entropy(logits, labels, ignore_index=255, reduction="sum")
        pixels += int((labels != 255).sum())
        truth = torch.tensor(scene.instances).float()
        for masks in F.interpolate(out.masks[0], size=(SIDE, SIDE), mode="bilinear", align_corners=False):
            pairs = [[_pair(p, g) for g in truth] for p in masks]
            cost = torch.stack([torch.stack([a + b for a, b in row]) for row in pairs])
            rows, columns = linear_sum_assignment(cost.detach().numpy())
            drawn = drawn + cost[rows, columns].sum()
    assert_close(found["cross-entropy"], named / pixels, depth="network")
    assert_close(found["dice"] + found["bce"], 2 * drawn / 3, depth="network")


def _pair(p: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    return 1 - (2 * (p * g).sum() + 1) / (p.sum() + g.sum() + 1), F.binary_cross_entropy(p, g)


def test_two_groups_learn_at_their_own_rates_and_all_decay(home: Path) -> None:
    recipe, network, _, _ = parts(home)
    decoder, encoder = build_optimizer(network, recipe).param_groups
    assert (decoder["lr"], encoder["lr"]) == (1e-3, 1e-4)
    assert decoder["weight_decay"] == encoder["weight_decay"] == 0.05
    assert {id(p) for p in encoder["params"]} == {id(p) for p in network.encoder.parameters()}
    assert id(network.encoder.proj) in {id(p) for p in encoder["params"]}
    assert len(decoder["params"]) + len(encoder["params"]) == len(list(network.parameters()))


def test_words_are_bare_names_after_the_background(home: Path) -> None:
    _, _, _, words = parts(home)
    clip = Clip(home / "clip").with_prompts(["{}"])
    for word, name in zip(words, ("background", *NAMES), strict=True):
        assert_close(word, clip.encode_text(Vocabulary.from_entries([(name,)]))[0], depth="network")


def test_the_network_follows_from_the_seed_and_leaves_the_callers_generator_alone(home: Path) -> None:
    before, local = torch.get_rng_state(), find_clip(str(home / "clip"))
    recipes = [recipe_of(home, home / "nowhere", seed=seed) for seed in (1, 1, 2)]
    one, two, other = (build_network(local, NAMES, recipe).state_dict() for recipe in recipes)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["query_embed.weight"], other["query_embed.weight"])


def test_it_learns(home: Path, tmp_path: Path) -> None:
    _, before, scenes, words = parts(home)
    fit_zutis(recipe_of(home, tmp_path, steps=20, lr=3e-3, encoder_lr=1e-3), say=quiet)
    unseen = collate([draw_scene(scenes, 1, i) for i in range(8)])
    first, last = (ZutisCriterion(n, words, 255, 1.0, DistributedContext())(n, unseen) for n in (before, load_zutis(tmp_path)))
    assert last["cross-entropy"] < first["cross-entropy"] - 0.02
    assert last["dice"] + last["bce"] < 0.9 * (first["dice"] + first["bce"])


# The archive


def test_held_out_names_are_not_learned(home: Path, tmp_path: Path) -> None:
    recipe = recipe_of(home, tmp_path, exclude=("cat",), steps=1)
    archive, _ = read_archive(recipe)
    assert archive.names == ("dog", "cup") and all(not i.startswith("cat") for i in archive.ids)
    fit_zutis(recipe, say=quiet)
    assert load_zutis(tmp_path).config.names == ("dog", "cup")
    with pytest.raises(InputError, match="unknown name to exclude 'cst'; did you mean 'cat'"):
        read_archive(replace(recipe, exclude=("cst",)))
    with pytest.raises(InputError, match=r"all 3 of .* are excluded"):
        read_archive(replace(recipe, exclude=NAMES))


def test_what_an_archive_lacks_is_told_with_the_command_that_makes_it(home: Path, tmp_path: Path) -> None:
    recipe = recipe_of(home, tmp_path / "out")
    shutil.copytree(home / "archive", tmp_path / "bare")
    (tmp_path / "bare" / "masks.jsonl").unlink()
    with pytest.raises(InputError, match=r"expected masks of the images in .*bare, got none; run `annofree mask .*bare`"):
        read_archive(replace(recipe, archive=tmp_path / "bare"))
    write_archive(tmp_path / "half", masked=("dog", "cup"))
    with pytest.raises(InputError, match=r"got none that shows something of 'cat'; run `annofree mask .*half` to its end"):
        read_archive(replace(recipe, archive=tmp_path / "half"))
    whole = Archive.read(home / "archive")
    shutil.copytree(home / "archive", tmp_path / "empty")
    Archive(NAMES, {**whole.members, "cup": ()}, whole.places).write(tmp_path / "empty")
    with pytest.raises(InputError, match=r"got none of 'cup'; run `annofree retrieve`"):
        read_archive(replace(recipe, archive=tmp_path / "empty"))
    with pytest.raises(InputError, match="make one with `annofree retrieve`"):
        read_archive(replace(recipe, archive=tmp_path / "nowhere"))


def test_masks_of_low_quality_are_left_out(home: Path, tmp_path: Path) -> None:
    _, masks = read_archive(recipe_of(home, tmp_path, min_quality=0.55))
    assert {i[-1] for i in masks} == {"1", "2"}


@pytest.mark.parametrize(
    ("looks", "message"),
    [
        ({"min_quality": 0.9, "min_part": 0.5}, "but min_quality 0.9 of the recipe leaves out all of 'dog', 'cat', 'cup'"),
        ({"max_border": 0.0, "exclude": ("cup",)}, "but max_border 0 of the recipe leaves out all of 'dog', 'cat'; take"),
    ],
)
def test_settings_that_leave_a_name_without_masks_are_told(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: Mapping[str, Any], message: str
) -> None:
    whole = encode_rle(np.ones((40, 36), bool))
    every = {id_: replace(mask, rle=whole) for id_, mask in read_masks(home / "archive").items()}
    monkeypatch.setattr("annofree.training.archives.lesson.read_masks", lambda folder: every)
    with pytest.raises(InputError, match=message):
        read_archive(recipe_of(home, tmp_path, **looks))


def test_the_fingerprint_knows_names_pictures_and_masks(home: Path, tmp_path: Path) -> None:
    archive, masks = read_archive(recipe_of(home, tmp_path))
    fewer = {i: m for i, m in masks.items() if i != "dog-0"}
    without = read_archive(recipe_of(home, tmp_path, exclude=("cat",)))[0]
    keys = {compute_fingerprint(archive, masks), compute_fingerprint(archive, fewer), compute_fingerprint(without, masks)}
    assert len(keys) == 3 and compute_fingerprint(archive, dict(reversed(masks.items()))) in keys


# The recipe


def test_a_recipe_is_read_relative_to_its_file(home: Path) -> None:
    recipe = ZutisRecipe.read(home / "recipe.toml")
    assert recipe.archive == home / "archive" and recipe.out == home / "out" and recipe.clip == str(home / "clip")
    assert recipe.build_scene_settings() == replace(VARIANTS["default"], crop=32, images=[1, 3])
    changed = ZutisRecipe.read(home / "recipe.toml", steps=9, out=Path("elsewhere"), archive=None)
    assert changed.steps == 9 and changed.out == Path("elsewhere") and changed.archive == recipe.archive


def test_what_is_not_given_is_as_released() -> None:
    recipe = ZutisRecipe(Path("archive"), "openai-vit-b-16", Path("out"))
    assert (recipe.steps, recipe.batch, recipe.lr, recipe.encoder_lr) == (20_000, 8, 5e-5, 5e-6)
    assert (recipe.weight_decay, recipe.power, recipe.floor, recipe.max_norm) == (0.05, 0.9, 1e-6, 0)
    assert recipe.build_scene_settings().crop == 384 and recipe.templates == "name" and not recipe.bf16


def written(folder: Path, text: str) -> Path:
    (folder / "recipe.toml").write_text(text)
    return folder / "recipe.toml"


WRONG: Mapping[str, tuple[str, str]] = {
    "near": ("encoder_rl = 1e-6", "unknown field of the recipe recipe.toml 'encoder_rl'; did you mean 'encoder_lr'"),
    "network": ("[network]\nquerys = 3", r"unknown setting of \[network\] 'querys'; did you mean 'queries'"),
    "scenes": ("[scenes]\ncrops = 3", r"unknown setting of \[scenes\] 'crops'; did you mean 'crop'"),
    "variant": ("[scenes]\nvariant = 'oficial'", r"unknown variant of \[scenes\] 'oficial'; did you mean 'official'"),
    "kind": ("[scenes]\ncrop = 'wide'", r"expected crop of \[scenes\] as a whole number"),
    "text": ("steps = 'many'", "expected steps as a whole number, got 'many'"),
    "truth": ("lr = true", "expected lr as a number, got True"),
    "half": ("batch = 1.5", "expected batch as a whole number"),
    "zero": ("batch = 0", "expected batch above 0, got 0"),
    "less": ("weight_decay = -1", "expected weight_decay from 0, got -1"),
    "beyond": ("min_part = 1.5", "expected min_part from 0 to 1, got 1.5"),
    "all of it": ("max_border = 2", "expected max_border from 0 to 1, got 2"),
    "best": ("min_quality = 1.1", "expected min_quality from 0 to 1, got 1.1"),
    "under": ("max_border = -0.1", "expected max_border from 0, got -0.1"),
    "no number": ("min_part = nan", "expected min_part as a number, got nan"),
    "weight": ("empty_weight = 'some'", "expected empty_weight as a number, got 'some'"),
    "endless": ("minutes = inf", "expected minutes as a finite number, got inf"),
    "backwards": ("minutes = -3", "expected minutes from 0, got -3"),
    "canvas": ("[scenes]\nwhole_canvas = 1", r"expected whole_canvas of \[scenes\] as true or false, got 1"),
    "single": ("exclude = 'dog'", r"expected exclude as a list of names, got the text 'dog'; write \['dog'\]"),
    "toml": ("steps = ", "expected TOML in a recipe"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_recipes_say_what_is_wrong(tmp_path: Path, case: str) -> None:
    text, message = WRONG[case]
    path = written(tmp_path, f'archive = "a"\nclip = "c"\nout = "o"\n{text}\n')
    with pytest.raises(InputError, match=message):
        ZutisRecipe.read(path)


def test_recipes_that_are_not_there_or_say_too_little(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a recipe at .*cannot be read: No such file"):
        ZutisRecipe.read(tmp_path / "none.toml")
    with pytest.raises(InputError, match="expected clip, out in the recipe"):
        ZutisRecipe.read(written(tmp_path, 'archive = "a"'))


def test_an_unknown_clip_is_told_with_the_nearest(home: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'openai-vit-b-16'"):
        find_clip("openai-vit-b16")
    assert find_clip("tiny").card.name == "tiny-clip"  # a preset's


# Scenes that are drawn once


def test_a_pool_holds_the_scenes_of_its_numbers(home: Path, tmp_path: Path) -> None:
    recipe = recipe_of(home, tmp_path)
    scenes = CopyPaste(*read_archive(recipe), recipe.build_scene_settings())
    said = list[str]()
    drawn = keep_pool(tmp_path, scenes, 5, 70, {}, 2, TenthTeller(said.append))
    assert [line.split(",")[0] for line in said] == [
        "drawing 70 scenes",
        "64 of 70 scenes are drawn",
        "70 of 70 scenes are drawn",
    ]
    pool = ScenePool(drawn, 5)
    numbers = [3, 69, 73]
    pixels, labels, instances = pool.gather(numbers)
    for at, number in enumerate(numbers):
        truth = draw_scene(scenes, 5, number % 70)
        turn = next(
            (k, mirrored)
            for mirrored in (False, True)
            for k in range(4)
            if torch.equal(turned(torch.from_numpy(truth.image).permute(2, 0, 1), k, mirrored), pixels[at])
        )
        assert torch.equal(turned(torch.from_numpy(truth.semantic), *turn), labels[at].long())
        assert torch.equal(turned(torch.from_numpy(truth.instances), *turn), instances[at])
    again = keep_pool(tmp_path, scenes, 5, 70, {})
    assert np.array_equal(drawn.pixels, again.pixels) and np.array_equal(drawn.owners, again.owners)
    assert len(list(tmp_path.glob("scenes-*"))) == 1
    keep_pool(tmp_path, scenes, 6, 2, {})
    assert len(list(tmp_path.glob("scenes-*"))) == 2


def turned(maps: Tensor, quarters: int, mirrored: bool) -> Tensor:
    return (maps.flip(-1) if mirrored else maps).rot90(quarters, (-2, -1))


def test_a_pool_and_an_average_are_learned_from_and_resumed(home: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"pool": 6, "ema": 0.5, "network": {"queries": 4, "located_masks": True}}
    fit_zutis(recipe_of(home, tmp_path / "whole", **changes), say=quiet)
    network = load_zutis(tmp_path / "whole")
    assert network.config.located_masks
    train_in_two(fit_zutis, recipe_of(home, tmp_path / "halves", **changes), tmp_path / "halves")
    assert curve(tmp_path / "halves") == curve(tmp_path / "whole")


def test_what_recipes_did_not_always_have_leaves_older_trainings_their_key(home: Path, tmp_path: Path) -> None:
    plain = recipe_of(home, tmp_path)
    assert not {"pool", "ema"} & plain.resume_key().keys()
    assert recipe_of(home, tmp_path, pool=6).resume_key() == plain.resume_key() | {"pool": 6}
