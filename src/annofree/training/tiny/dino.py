"""The bundled tiny DINO: timm's VisionTransformer, trained on images of the emoji world alone, without any label.

It has DINO's layout and stands in DINO's place, but is taught otherwise: DINO's own loss needs far more than minutes on one
core.  Blobs cut from images are pasted on others; the last block's keys learn to tell ground from what was pasted and to find
a pasted patch again in another view, and its class token to attend to what was pasted.  What follows that reading in the last
block is not trained.  Captions, masks and names of the scenes are never read: supervision tier S0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import timm
import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from annofree.datasets.emoji.world import World
from annofree.hub.cards import Card, hash_file
from annofree.io.atomic import write_json
from annofree.io.tensors import write_half
from annofree.training.augment.dino_views import Paster, ViewPairs
from annofree.training.augment.photometric import PhotometricChange
from annofree.training.losses.dino_loss import (
    compute_attention_loss,
    compute_ground_cosines,
    compute_ground_loss,
    compute_match_loss,
)
from annofree.training.tiny.budget import Budget, check_folder, find_generator, make_rng, summarize_effort, train_on_budget
from annofree.training.tiny.evaluate_saliency import evaluate_dino
from annofree.training.tiny.pool import Pool

__all__ = ["ARCHITECTURE", "BUDGET", "MODEL", "POOL", "USE", "build_model", "fit_tiny_dino", "write_tiny_dino"]

ARCHITECTURE = "vit_small_patch8_224"
MODEL: dict[str, Any] = {"img_size": 64, "embed_dim": 128, "depth": 4, "num_heads": 4}
"""timm's arguments: patches of 8 px, few and narrow layers."""
USE: dict[str, Any] = {"side": 128, "positions": "bicubic-antialias"}
"""How the card says that the model is best used; positions are resized as timm does."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BUDGET = Budget(samples=24_000, batch=32, lr=1.5e-3, weight_decay=0.04, warmup=0.05)
"""Takes 20 minutes on one core; the bundled model saw 15 times as many on a GPU.  A sample is a pair of views."""

POOL = 3_000
"""Images rendered ahead."""

_SIDE = 128  # px of a rendered image
_AT_ONCE = 50  # images that a process draws in turn
_MIX = {"mixed": 0.5, "plain": 0.25, "touching": 0.1, "single": 0.15}
_VIEW = 64  # px: a view shows things as large as an image of USE's side does
_ATTENTION, _MATCH = 0.2, 0.1  # weights of two losses; the ground's is 1


def _render(world: World, seed: int, numbers: Iterable[int]) -> list[npt.NDArray[np.uint8]]:
    """Draw the images (H, W, 3) of some numbers, each from its number alone."""
    rngs = [make_rng("picture", seed, number) for number in numbers]
    return [world.draw_scene(rng, rng.choice(list(_MIX), p=list(_MIX.values())), _SIDE).image for rng in rngs]


def build_model(seed: int = 0) -> VisionTransformer:
    """Build the tiny model with random weights; it takes any square or oblong image of whole patches."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = timm.create_model(ARCHITECTURE, pretrained=False, num_classes=0, dynamic_img_size=True, **MODEL)
    model = cast(VisionTransformer, built)
    for block in model.blocks.children():  # in bfloat16 on a CPU, plain attention is twice as fast to train
        cast(Attention, cast(Block, block).attn).fused_attn = False  # type: ignore[misc]
    return model


class _Reader(nn.Module):
    """The keys (B, N, D) of the last block's patches, and its class token's attention to them (B, heads, N).

    Weights are kept in float32 and used in bfloat16, which on a CPU is faster than autocasting layer by layer.
    """

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        blocks: list[Any] = list(self.model.blocks.children())
        x = self.model._pos_embed(self.model.patch_embed(pixels))
        for block in blocks[:-1]:
            x = block(x)
        last = blocks[-1]
        q, k, _ = last.attn.qkv(last.norm1(x)).float().chunk(3, 2)
        asked, heads = (t.reshape(*t.shape[:2], last.attn.num_heads, -1) for t in (q[:, :1], k))
        row = torch.einsum("bqhd,bnhd->bhn", asked, heads) * last.attn.scale
        return k[:, 1:], row.softmax(2)[:, :, 1:]

    def read(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Read images (B, 3, H, W) in 0 .. 1."""
        mean, std = (torch.tensor(v, device=pixels.device).view(3, 1, 1) for v in (MEAN, STD))
        weights = {name: value.bfloat16() for name, value in self.named_parameters()}
        keys, attention = functional_call(self, weights, (((pixels - mean) / std).bfloat16(),))
        return keys, attention


class _Views:
    """Makes the pairs of a step, all at once and from the number of the first of them alone."""

    def __init__(self, images: Tensor, seed: int, device: str = "cpu") -> None:
        self.seed, self.generator = seed, torch.Generator(device)
        self.paster = Paster(images, self.generator)

    def __call__(self, numbers: list[int]) -> ViewPairs:
        self.generator.manual_seed(int(make_rng("example", self.seed, numbers[0]).integers(2**62)))
        return self.paster.paste_pairs(len(numbers), _VIEW)

    def watched(self, count: int) -> ViewPairs:
        """Pairs whose figures are told during a run."""
        self.generator.manual_seed(self.seed)
        return self.paster.paste_pairs(count, _VIEW)


def _losses_of(
    reader: Any, numbers: list[int], *, views: Callable[[list[int]], ViewPairs], light: PhotometricChange, device: str
) -> dict[str, Tensor]:
    """The three losses of a batch of pairs, weighted."""
    pairs = views(numbers)
    cells = pairs.pixels.shape[-1] // 8
    ground = pairs.measure_ground(cells).to(device)
    keys, attention = reader.read(light(pairs.pixels.flatten(0, 1)).to(device))
    told, seen = compute_ground_loss(keys, ground.flatten(0, 1)), compute_attention_loss(attention, ground.flatten(0, 1))
    first, second = keys.chunk(2)
    matched = _matched(first, second, pairs.locate_patches(cells).to(device), ground[0])
    return {"ground": told, "attention": _ATTENTION * seen, "match": _MATCH * matched}


def _matched(first: Tensor, second: Tensor, places: Tensor, ground: Tensor) -> Tensor:
    """The match loss of the first view's pasted patches that the second shows as well; keys are (B, h * w, D)."""
    cells = int(places.shape[1] ** 0.5)
    maps = second.transpose(1, 2).reshape(len(second), -1, cells, cells)
    there = F.grid_sample(maps, places[:, :, None], mode="bilinear", align_corners=False)[..., 0].transpose(1, 2)
    shown = (ground < 0.5) & (places.abs() <= 1 - 1 / cells).all(2)
    return compute_match_loss(first[shown], there[shown], shown.nonzero()[:, 0])


@torch.inference_mode()
def _progress(reader: _Reader, pairs: ViewPairs, device: str) -> dict[str, float]:
    """How many patches of watched views are told apart, and how much attention goes to what was pasted."""
    ground = pairs.measure_ground(pairs.pixels.shape[-1] // 8).flatten(0, 1).to(device)
    keys, attention = reader.read(pairs.pixels.flatten(0, 1).to(device))
    right = (compute_ground_cosines(keys, ground) > 0) == (ground > 0.5)
    pasted = (attention * (1 - ground)[:, None]).sum(2) / attention.sum(2)
    return {"told apart": float(right.float().mean()), "attention to pasted": float(pasted.mean())}


def fit_tiny_dino(
    out: Path,
    budget: Budget = BUDGET,
    *,
    seed: int = 0,
    font: Path | None = None,
    pool_size: int = POOL,
    exam_size: int = 150,
    device: str = "cpu",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """Render, train, examine and write the tiny DINO to ``out`` in timm's layout.

    Returns the figures of ``evaluate_dino`` on ``exam_size`` scenes of other seeds.  Raises MissingError without the emoji
    font, InputError where ``out`` holds a run with other settings.
    """
    world, about = World(font), {"pool": pool_size}
    check_folder(out, budget, seed, about)
    pool: Pool[npt.NDArray[np.uint8]] = Pool(functools.partial(_render, world, seed), pool_size, 0, _AT_ONCE)
    pool.fill(say, workers=budget.workers)
    images = torch.from_numpy(np.stack([pool.draw_thing(number) for number in range(pool_size)])).permute(0, 3, 1, 2)
    views = _Views(images, seed, device)
    model = build_model(seed).to(device)
    reader, watched = _Reader(model), views.watched(64)
    losses = functools.partial(_losses_of, views=views, light=PhotometricChange(find_generator(device)), device=device)
    training = train_on_budget(
        reader, losses, int, budget, out,
        collate=list, seed=seed, device=device, measure=lambda: _progress(reader, watched, device),
        on_progress=on_progress, say=say, about=about,
    )  # fmt: skip
    return write_tiny_dino(model, training, out, font=font, exam_size=exam_size)


def write_tiny_dino(
    model: VisionTransformer, training: dict[str, float], out: Path, *, font: Path | None = None, exam_size: int = 150
) -> dict[str, float]:
    """Write configuration, weights (fp16) and card to a folder that ``Dino`` reads, and return its exam's figures.

    ``training`` tells how far it got: samples, minutes, loss.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "config.json", {"architecture": ARCHITECTURE, "model_args": MODEL, "mean": MEAN, "std": STD}, indent=2)
    write_half(out / "model.safetensors", model.state_dict())
    card = Card(
        name="tiny-dino",
        family="timm VisionTransformer",
        tier="S0",
        licence="Apache-2.0",
        code_licence="Apache-2.0",
        kind="dino",
        trained_on="rendered scenes of the emoji world, without captions, masks or names",
        world="emoji",
        files={name: hash_file(out / name) for name in ("config.json", "model.safetensors")},
        use=USE,
    )
    card.write(out)
    figures = evaluate_dino(out, font, exam_size)
    replace(card, figures=summarize_effort(training) | figures).write(out)
    return figures
