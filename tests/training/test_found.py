"""FOUND's training: its loss against a slow twin, its targets, a lesson on planted keys, a run of seconds, and its exam."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from tests.support.drawing import drawing
from torch import Tensor, nn

from annofree.datasets.emoji.world import SPLITS, World
from annofree.errors import InputError
from annofree.features.dino import Dino
from annofree.features.saliency import read_found_head
from annofree.hub.cards import Card
from annofree.structures import FeatureMap, Image
from annofree.testing.tolerances import assert_close
from annofree.training.tiny import dino as tiny_dino
from annofree.training.tiny.dino import build_model, write_tiny_dino
from annofree.training.tiny.evaluate_saliency import measure_overlap
from annofree.training.tiny.found_head import BUDGET, compute_found_loss, fit_found, refine_patches
from annofree.training.tiny.found_head import _Draw as Draw
from annofree.training.tiny.found_head import _FoundBatch as Lesson


def slow_entropy(logits: Tensor, target: Tensor) -> float:
    values = []
    for x, t in zip(logits.flatten().tolist(), target.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        values.append(-math.log(p) if t else -math.log(1 - p))
    return sum(values) / len(values)


@pytest.mark.parametrize("progress", [0.0, 0.89, 0.9, 1.0])
def test_the_loss_is_first_to_the_seed_then_to_the_head_itself(progress: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, generator=generator)
    drawn = torch.rand(2, 3, 4, generator=generator) < 0.5
    seeded, taught = slow_entropy(logits, drawn), 1.5 * slow_entropy(logits, drawn) + 4 * slow_entropy(logits, logits > 0)
    assert_close(compute_found_loss(logits, drawn, progress), seeded if progress < 0.9 else taught)


def half_white(side: int = 64) -> Image:
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[:, side // 2 :] = 255
    return Image(pixels)


def test_refined_masks_end_at_the_edges_of_the_picture() -> None:
    right = torch.zeros(8, 8, dtype=torch.bool)
    right[:, 4:] = True
    rough = right.clone()
    rough[3, 6] = False  # a hole
    rough[5, 2] = True  # a speck on the other side
    [drawn] = refine_patches(half_white(), rough[None], "pamr")
    assert torch.equal(drawn, right)
    assert torch.equal(refine_patches(half_white(), rough[None], "none")[0], rough)


def test_a_mask_that_refinement_would_take_away_stays() -> None:
    speck = torch.zeros(2, 8, 8, dtype=torch.bool)
    speck[0, 5, 2] = True
    assert torch.equal(refine_patches(half_white(), speck, "pamr"), speck), "an empty mask stays empty, too"


class Planted:
    """Keys that say thing or background by the brightness of a patch, with noise, and attention to things."""

    heads, patch = 2, 8

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def extract_keys_and_attention(self, images: Sequence[Image]) -> list[tuple[FeatureMap, FeatureMap]]:
        return [(FeatureMap(k, i.size), FeatureMap(a, i.size)) for i in images for k, a in [self._maps(i)]]

    def _maps(self, image: Image) -> tuple[Tensor, Tensor]:
        thing = torch.tensor(image.pixels[4::8, 4::8, 0] > 127).float()
        keys = torch.stack([thing, 1 - thing, thing, 1 - thing]) + 0.1 * torch.randn(4, *thing.shape, generator=self.generator)
        return keys, (0.1 + torch.stack([thing, thing])) / 100


class Squares:
    """Scenes of one bright square on a dark ground."""

    class Scene:
        def __init__(self, image: Any) -> None:
            self.image = image

    def draw_scene(self, rng: np.random.Generator, split: str) -> Squares.Scene:
        pixels = np.full((64, 64, 3), 30, np.uint8)
        y, x = rng.integers(0, 5, 2) * 8
        pixels[y : y + 24, x : x + 24] = 220
        return self.Scene(pixels)


def test_without_a_label_the_head_learns_what_things_are() -> None:
    torch.manual_seed(0)
    head = nn.Conv2d(4, 1, 1)
    draw = Draw(cast(World, Squares()), replace(BUDGET, samples=240, batch=4), 0)
    lesson = Lesson(cast(Dino, Planted()), "pamr", 0.3)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.05)
    losses = []
    for step in range(60):
        loss = lesson(head, [draw(4 * step + k) for k in range(4)])["entropy"]
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    image = Image(Squares().draw_scene(np.random.default_rng(9), "mixed").image)
    [(keys, _)] = Planted().extract_keys_and_attention([image])
    assert torch.equal(head(keys.values[None])[0, 0] > 0, torch.tensor(image.pixels[4::8, 4::8, 0] > 127))
    assert losses[53] < losses[0] and losses[-1] < losses[54]


def test_an_unknown_refinement_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="refinement 'bilateral'"):
        fit_found(tmp_path, dino=tmp_path, refine=cast(Any, "bilateral"))


@drawing
def test_a_training_of_seconds_writes_a_head_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_dino, "USE", tiny_dino.USE | {"side": 64})
    monkeypatch.setattr(tiny_dino, "evaluate_dino", lambda *_: {})
    write_tiny_dino(build_model(1), {}, tmp_path / "dino")
    said: list[str] = []
    budget = replace(BUDGET, samples=12, batch=4)
    figures = fit_found(tmp_path / "found", budget, dino=tmp_path / "dino", exam_size=2, say=said.append)
    weight, bias = read_found_head(tmp_path / "found" / "model.safetensors")
    assert weight.shape == (128,) and bool(torch.isfinite(weight).all()) and bias.ndim == 0
    assert not torch.equal(weight, read_found_head(tmp_path / "found" / "untrained" / "model.safetensors")[0])
    card = Card.read(tmp_path / "found")
    assert (card.name, card.kind, card.tier, card.figures["training samples"]) == ("tiny-found", "saliency", "S0", 12)
    rules = ["found", "found-bkg", "tokencut", "everything"]
    expected = {f"{split} IoU, {rule}{pooled}" for split in SPLITS for rule in rules for pooled in ("", ", pooled")}
    controls = {f"{name}, random weights" for name in expected if "everything" not in name}
    assert set(figures) == expected | controls
    assert figures.items() <= card.figures.items() and all(0 <= value <= 1 for value in figures.values())


def test_overlap_per_image_and_pooled() -> None:
    rng = np.random.default_rng(0)
    truth = [rng.random((12, 9)) < 0.4 for _ in range(3)]
    found = [t ^ (rng.random(t.shape) < 0.2 * (k + 1)) for k, t in enumerate(truth)]
    score = measure_overlap([*found, np.zeros((4, 4), bool)], [*truth, np.zeros((4, 4), bool)])
    single, both, either = [], 0, 0
    for f, t in zip(found, truth, strict=True):
        b = sum(bool(f[at] and t[at]) for at in np.ndindex(*t.shape))
        e = sum(bool(f[at] or t[at]) for at in np.ndindex(*t.shape))
        single.append(b / e)
        both, either = both + b, either + e
    assert_close([score.per_image, score.pooled], [sum(single) / 3, both / either])
