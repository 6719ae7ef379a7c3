"""SelfMask's training: its losses against loops, its masks kept over a kill, and runs of seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from tests.support.drawing import drawing

from annofree.errors import ImageError, InputError
from annofree.features.selfmask import SelfMask, load_selfmask
from annofree.features.selfmask_network import SelfMaskConfig, SelfMaskNetwork, SelfMaskOutput
from annofree.hub.cards import Card
from annofree.retrieval.archive import read_masks
from annofree.structures import Image
from annofree.testing.tolerances import assert_close
from annofree.training.engine.state import TrainConfig
from annofree.training.losses.selfmask_losses import compute_dice_losses, compute_ranking_loss, compute_selfmask_losses
from annofree.training.selfmask.spectral_voting import SpectralVoter, Voting, extract_colors
from annofree.training.selfmask.train import TINY, Changes, build_network, draw_emoji_images, fit_selfmask, vote_masks
from annofree.training.tiny.dino import build_model, write_tiny_dino

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = replace(
    TINY, model_args={"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 2}, layers=2, heads=2, ffn=32, queries=4
)
COURSE = TrainConfig(steps=6, batch=2, clip=1.0)


def test_dice_is_that_of_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    masks, truth = torch.rand(2, 3, 4, 5, 6, generator=generator), (torch.rand(2, 5, 6, generator=generator) > 0.6).float()
    found = compute_dice_losses(masks, truth)
    for b, layer, q in np.ndindex(2, 3, 4):
        both = sum(float(p) * float(t) for p, t in zip(masks[b, layer, q].flatten(), truth[b].flatten(), strict=True))
        expected = 1 - (2 * both + 1) / (float(masks[b, layer, q].sum()) + float(truth[b].sum()) + 1)
        assert_close(found[b, layer, q], expected)
    assert compute_dice_losses(torch.zeros(1, 1, 1, 2, 2), torch.zeros(1, 2, 2)).item() == 0


@pytest.mark.parametrize("order", ["paper", "released", "official"])
def test_the_ranking_loss_is_that_of_a_loop(order: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    dice, objectness = torch.rand(3, 5, generator=generator), torch.rand(3, 5, generator=generator)
    for row in range(3):
        costs = []
        for worse in range(5):
            for better in range(5):
                if dice[row, worse] > dice[row, better]:
                    wrong = float(objectness[row, worse] - objectness[row, better])
                    costs.append(max(0.0, wrong if order == "paper" else -wrong))
        assert len(costs) == 10
        assert_close(compute_ranking_loss(dice, objectness, order)[row], sum(costs) / (1 if order == "official" else 10))


def test_a_right_order_costs_nothing_and_a_wrong_one_is_pushed_towards_the_right() -> None:
    dice = torch.tensor([0.1, 0.4, 0.4, 0.9], requires_grad=True)
    right, wrong = torch.tensor([0.9, 0.5, 0.3, 0.1]), torch.tensor([0.1, 0.3, 0.5, 0.9], requires_grad=True)
    assert (
        float(compute_ranking_loss(dice, right).detach()) == 0
        and float(compute_ranking_loss(dice, right, "released").detach()) > 0
    )
    loss = compute_ranking_loss(dice, wrong)
    torch.autograd.backward(loss)
    assert dice.grad is None, "dice is only compared"
    assert wrong.grad is not None and wrong.grad[0] < 0 < wrong.grad[3], "better masks go up, worse ones down"
    assert float(compute_ranking_loss(torch.ones(4), right)) == 0, "no query is better than another"


def test_losses_are_summed_over_layers_and_queries_and_averaged_over_pictures() -> None:
    generator = torch.Generator().manual_seed(2)
    out = SelfMaskOutput(torch.rand(2, 3, 4, 6, 6, generator=generator), torch.rand(2, 3, 4, generator=generator))
    truth = torch.zeros(2, 12, 12)
    truth[:, :5, 2:7] = 1
    losses = compute_selfmask_losses(out, truth)
    cells = truth.view(2, 6, 2, 6, 2).mean((2, 4))
    dice = compute_dice_losses(out.masks, cells)
    assert_close(losses["dice"], dice.sum() / 2)
    assert_close(losses["ranking"], compute_ranking_loss(dice, out.objectness).sum() / 2)


def test_the_official_losses_sum_over_pairs_and_compare_masks_at_the_size_of_the_truth() -> None:
    generator = torch.Generator().manual_seed(3)
    out = SelfMaskOutput(torch.rand(2, 2, 3, 4, 5, generator=generator), torch.rand(2, 2, 3, generator=generator))
    truth = (torch.rand(2, 10, 11, generator=generator) > 0.6).float()
    dice, ranking = 0.0, 0.0
    for b, layer in np.ndindex(2, 2):
        losses = []
        for q in range(3):
            mask, there = enlarge_slowly(out.masks[b, layer, q].numpy(), (10, 11)), truth[b].numpy()
            losses.append(float(1 - (2 * (mask * there).sum() + 1) / (mask.sum() + there.sum() + 1)))
        dice += sum(losses)
        order = np.argsort(-np.array(losses))  # the worst first
        worst_first = [float(out.objectness[b, layer, q]) for q in order]
        ranking += sum(max(0.0, worst_first[j] - worst_first[i]) for i in range(3) for j in range(i + 1, 3))
    found = compute_selfmask_losses(out, truth, "official")
    assert_close(found["dice"], dice / 2)
    assert_close(found["ranking"], ranking / 2)


def enlarge_slowly(mask: Any, size: tuple[int, int]) -> Any:
    """Bilinear by cell centers, edges repeated, one pixel after the other."""
    out = np.zeros(size)
    for i, j in np.ndindex(*size):
        y, x = ((k + 0.5) * n / m - 0.5 for k, n, m in zip((i, j), mask.shape, size, strict=True))
        corners = [(int(np.floor(y)) + a, int(np.floor(x)) + b) for a in (0, 1) for b in (0, 1)]
        weights = [(1 - abs(y - r)) * (1 - abs(x - c)) for r, c in corners]
        values = [mask[np.clip(r, 0, mask.shape[0] - 1), np.clip(c, 0, mask.shape[1] - 1)] for r, c in corners]
        out[i, j] = sum(w * v for w, v in zip(weights, values, strict=True))
    return out


def scene(seed: int, size: tuple[int, int] = (40, 48)) -> Image:
    """A bright square somewhere on a dark, noisy ground."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(20, 60, (*size, 3), dtype=np.uint8)
    y, x = rng.integers(4, 20, 2)
    pixels[y : y + 14, x : x + 14] = rng.integers(180, 250, 3)
    return Image(pixels, str(seed))


def images(count: int) -> dict[str, Callable[[], Image]]:
    def opened(seed: int) -> Callable[[], Image]:
        return lambda: scene(seed)

    return {f"{seed}.png": opened(seed) for seed in range(count)}


def voter() -> SpectralVoter:
    return SpectralVoter({"colour": extract_colors}, Voting(most=400))


def test_votes_are_kept_and_go_on_after_a_kill(tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    assert vote_masks(images(4), voter(), tmp_path / "whole", lambda *a: said.append(a)) == {}
    assert said == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]

    def killed() -> Image:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vote_masks({**images(2), "2.png": killed}, voter(), tmp_path / "cut")
    with (tmp_path / "cut" / "masks.jsonl").open("a") as file:
        file.write('{"id": "2.png", "si')
    opened: list[str] = []

    def counted(name: str) -> Callable[[], Image]:
        def drawn() -> Image:
            opened.append(name)
            return images(4)[name]()

        return drawn

    vote_masks({name: counted(name) for name in images(4)}, voter(), tmp_path / "cut")
    assert opened == ["2.png", "3.png"]
    assert (tmp_path / "cut" / "masks.jsonl").read_bytes() == (tmp_path / "whole" / "masks.jsonl").read_bytes()
    masks = read_masks(tmp_path / "whole")
    assert [m.quality > 0 for m in masks.values()] == [True] * 4 and masks["0.png"].rle["size"] == [40, 48]
    with pytest.raises(InputError, match="made otherwise"):
        vote_masks(images(4), SpectralVoter({"colour": extract_colors}), tmp_path / "whole")


def test_a_picture_that_cannot_be_read_is_named_and_passed_over(tmp_path: Path) -> None:
    def broken() -> Image:
        raise ImageError("1.png is damaged")

    failed = vote_masks({**images(1), "1.png": broken, "2.png": lambda: scene(2)}, voter(), tmp_path)
    assert failed == {"1.png": "1.png is damaged"} and list(read_masks(tmp_path)) == ["0.png", "2.png"]


def test_pictures_and_masks_change_alike() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    mask = np.zeros((32, 32), np.uint8)
    pixels[8:20, 4:12], mask[8:20, 4:12] = 255, 1
    changes = Changes(side=32, jitter_share=0, grey=0, blur=0, scale=(0.5, 1.0))
    flipped = 0
    for seed in range(20):
        changed, found = changes.apply(np.random.default_rng(seed), pixels, mask)
        assert changed.shape == (32, 32, 3) and found.shape == (32, 32) and set(np.unique(found)) <= {0, 1}
        bright = changed[..., 0] > 127
        assert (bright & (found > 0)).sum() > 0.7 * (bright | (found > 0)).sum()
        flipped += int(np.flatnonzero(found.any(0)).mean() > 16)
    assert 4 < flipped < 16
    full = replace(changes, scale=(1.0, 1.0), flip=0.0).apply(np.random.default_rng(0), pixels, mask)
    assert np.array_equal(full[0], pixels) and np.array_equal(full[1], mask)


def card(name: str = "tiny-selfmask") -> Card:
    return Card(name, "SelfMask", "S0", "Apache-2.0", "squares", "emoji", {}, kind="saliency", use={"side": 32})


def taught(out: Path, steps: int = 6, **more: Any) -> dict[str, float]:
    torch.manual_seed(0)
    network = SelfMaskNetwork(SMALL)
    masks = read_masks(out.parent / "voted")
    return fit_selfmask(
        out, network, images(4), masks, replace(COURSE, steps=steps), changes=Changes(side=32), card=card(), **more
    )


def test_a_training_of_seconds_learns_something_and_writes_what_is_read(tmp_path: Path) -> None:
    vote_masks(images(4), voter(), tmp_path / "voted")
    first = taught(tmp_path / "short", 1)
    figures = taught(tmp_path / "run", 60, rate=3e-3)
    assert figures["training dice"] < first["training dice"] and figures["training step"] == 60
    model = SelfMask(tmp_path / "run")
    assert model.side == 32 and model.network.config == replace(SMALL, mean=SMALL.mean)
    (salient,) = model.predict_masks([scene(9)])
    assert salient.soft.shape == (40, 48) and 0 <= salient.objectness <= 1
    held = Card.read(tmp_path / "run")
    assert held.figures["training step"] == 60 and held.to_provenance()["tier"] == "S0"


def test_a_training_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    from annofree.training.engine.loop import TrainCallbacks

    vote_masks(images(4), voter(), tmp_path / "voted")
    taught(tmp_path / "whole")

    def kill(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        taught(tmp_path / "cut", watch=TrainCallbacks(checkpoint_every=3, on_progress=kill))
    taught(tmp_path / "cut", watch=TrainCallbacks(checkpoint_every=3))
    a, b = (load_selfmask(tmp_path / name).state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_nothing_to_learn_from_and_an_unknown_order_are_refused(tmp_path: Path) -> None:
    (tmp_path / "voted").mkdir()
    with pytest.raises(InputError, match="at least one image with a mask"):
        taught(tmp_path / "run")
    with pytest.raises(InputError, match="order of the ranking loss 'reverse'"):
        taught(tmp_path / "run", order=cast(Any, "reverse"))


def test_a_network_may_start_from_a_dino(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from annofree.training.tiny import dino as tiny_dino

    monkeypatch.setattr(tiny_dino, "evaluate_dino", lambda *_: {})
    write_tiny_dino(build_model(1), {}, tmp_path)
    network = build_network(tmp_path, queries=3)
    assert network.config == SelfMaskConfig(
        "vit_small_patch8_224", tiny_dino.MODEL, queries=3, heads=4, ffn=512, mean=network.config.mean, std=network.config.std
    )
    assert torch.equal(network.encoder.patch_embed.proj.weight, build_model(1).patch_embed.proj.weight.half().float())
    assert build_network(side=64).encoder.pos_embed.shape == (1, 65, 128)


@drawing
def test_emoji_pictures_follow_from_the_seed() -> None:
    a, b = draw_emoji_images(3, 5, 64), draw_emoji_images(3, 5, 64)
    for name in a:
        first, again = a[name](), b[name]()
        assert first.id == name and np.array_equal(first.pixels, again.pixels) and first.size == (64, 64)
    assert not set(a) & set(draw_emoji_images(3, 6, 64))
