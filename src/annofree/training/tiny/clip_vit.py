"""The bundled tiny CLIP ViT: open_clip's VisionTransformer, trained on the emoji world in the text space of ``tiny-clip``.

The text tower, its tokens and the logit scale are those of ``tiny-clip``, copied and frozen, so features of both image towers
meet the same words.  The image tower learns from captions and from a teacher, the image tower of ``tiny-clip``, whose
supervision is captions as well (tier S1); both meet the mean of its patch tokens, so that tokens come to name what they show.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from open_clip.model import CLIP
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from annofree.datasets.emoji.world import Scene, World
from annofree.features.clip import Clip
from annofree.features.clip_network import load_clip
from annofree.features.tokenizer import Tokenizer
from annofree.features.towers.vit import VitTower
from annofree.hub.cards import Card, find_bundled
from annofree.protocols import DensePath
from annofree.training.tiny import clip_export
from annofree.training.tiny.budget import Budget, check_folder, find_generator, make_rng, train_on_budget
from annofree.training.tiny.clip import Captioned, Exam, compute_contrastive_loss, group_captions, prepare_images, render
from annofree.training.tiny.clip_export import finish_card, save_clip
from annofree.training.tiny.evaluate import evaluate_dense_clip, measure_dense_iou
from annofree.training.tiny.pool import Pool

__all__ = ["BUDGET", "MODEL", "POOL", "TEACHER", "compute_distillation_loss", "encode_image", "fit_tiny_clip_vit"]

TEACHER = "tiny-clip"
"""The bundled model that gives the text tower and teaches."""
MODEL: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 128, "layers": 6, "width": 192, "head_width": 32, "patch_size": 16, "pool_type": "avg"},
    "text_cfg": clip_export.MODEL["text_cfg"],
}
"""open_clip's configuration; the vocabulary's size is that of the teacher's."""
USE: dict[str, Any] = {
    "dense_side": 256,
    "whole_side": 128,
    **{key: clip_export.USE[key] for key in ("templates", "neutral", "warning")},
}
"""How the card says that the model is best used; the dense path comes from its exam."""
BUDGET = Budget(samples=429_792, batch=96, lr=1e-3)
"""Takes 70 minutes on one core; the bundled model saw twice as many on a GPU (`benchmarks/train_tiny_models.py`)."""

POOL = 12_000
"""Images of 128 px rendered ahead; there are a quarter as many of 256 px."""

_SMALL_SIDE, _LARGE_SIDE = 128, 256
_SIZES, _SIZE_ODDS = (96, 112, 128, 160, 192, 256), (0.33, 0.25, 0.22, 0.11, 0.06, 0.03)
_LARGE_FRESH = 1  # large images a step that are replaced: only one step in eleven sees any
_DISTILLATION = 5.0  # of the loss; the frozen logit scale of about 26 multiplies the other part's gradients
_AT_ONCE = 64  # images that the teacher sees together


class Taught(NamedTuple):
    """An image (side, side, 3), its caption, and what the frozen towers say of both: unit features (D) of text and teacher."""

    image: npt.NDArray[np.uint8]
    caption: str
    text: Tensor
    teacher: Tensor


class Batch(NamedTuple):
    """B images (B, H, W, 3) uint8, ``groups`` of captions (B), features (B, D) of text and teacher, seen at ``size`` px."""

    images: Tensor
    groups: Tensor
    text: Tensor
    teacher: Tensor
    size: int


Teach = Callable[[Tensor, list[str]], Tensor]
"""Gives the unit features (B, 2, D) of captions and of images (B, s, s, 3), by the frozen towers."""


def _teach_all(teach: Teach, drawn: Sequence[Captioned]) -> list[Taught]:
    """Ask the frozen towers for some images and captions, all at once."""
    said = teach(torch.from_numpy(np.stack([d.image for d in drawn])), [d.caption for d in drawn])
    return [Taught(*d, *answer.unbind(0)) for d, answer in zip(drawn, said, strict=True)]


class _Draw:
    """Draws the number-th example of a run from two pools, of small and of large images, with the size of its step."""

    def __init__(self, small: Pool[Taught], large: Pool[Taught], batch: int, seed: int) -> None:
        self.small, self.large, self.batch, self.seed = small, large, batch, seed

    def __call__(self, number: int) -> tuple[Taught, int]:
        step = number // self.batch
        size = int(make_rng("step", self.seed, step).choice(_SIZES, p=_SIZE_ODDS))
        pool = self.large if size > 1.25 * _SMALL_SIDE else self.small
        return pool.pick(step, make_rng("example", self.seed, number)), size


def collate(examples: list[tuple[Taught, int]]) -> Batch:
    """Put the examples of a step into a batch."""
    images, captions, text, teacher = zip(*(taught for taught, _ in examples), strict=True)
    groups = group_captions(list(captions))
    return Batch(torch.from_numpy(np.stack(images)), groups, torch.stack(text), torch.stack(teacher), examples[0][1])


def encode_image(model: CLIP, images: Tensor) -> Tensor:
    """Unit image features (B, D) of normalized images (B, 3, s, s) of any size that is a multiple of 16 px."""
    return F.normalize(VitTower(model.visual).encode_image(images).float(), dim=-1)


def compute_distillation_loss(image: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine between (B, D) unit features of the student and of the teacher, averaged."""
    return 1 - (image * teacher).sum(-1).mean()


def build_model(folder: Path) -> tuple[CLIP, Tokenizer]:
    """A ViT of new weights on the text tower and logit scale of a model folder, which are frozen, and their tokenizer."""
    tokenizer = Tokenizer(MODEL["text_cfg"]["context_length"], json.loads((folder / "vocabulary.json").read_text()))
    model = CLIP(**(MODEL | {"text_cfg": MODEL["text_cfg"] | {"vocab_size": tokenizer.size}}))
    frozen = {k: v for k, v in load_clip(folder).model.state_dict().items() if not k.startswith("visual.")}
    model.load_state_dict(model.state_dict() | frozen)
    model.requires_grad_(False).visual.requires_grad_(True)
    return model.train(), tokenizer


def _teach(teacher: Clip, model: CLIP, tokenizer: Tokenizer, images: Tensor, captions: list[str]) -> Tensor:
    """Unit features (B, 2, D) of captions by the frozen text tower, and of images (B, s, s, 3) by the teacher."""
    with torch.no_grad():
        text = F.normalize(model.encode_text(tokenizer(captions).to(model.logit_scale.device)).float(), dim=-1)
    return torch.stack([text, teacher.encode_squares(images.permute(0, 3, 1, 2).float() / 255)], 1).cpu().clone()


def fit_tiny_clip_vit(
    out: Path,
    budget: Budget = BUDGET,
    *,
    seed: int = 0,
    font: Path | None = None,
    pool_size: int = POOL,
    exam_size: int = 300,
    calibration_size: int = 300,
    varied: float = 0.0,
    device: str = "cpu",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """Render, train, evaluate and write the tiny CLIP ViT to ``out`` in open_clip's folder layout.

    A share ``varied`` of the images is shown as ``fit_tiny_clip`` says.
    Writes what that writes and returns the figures measured on ``exam_size`` scenes drawn from other seeds;
    ``calibration_size`` scenes fit the presence of names and choose how the last block is read as a map.
    Raises MissingError without the emoji font, InputError where ``out`` holds a run with other settings.
    """
    world, taught_by = World(font), Card.read(find_bundled(TEACHER)).to_provenance()["sha256"]
    about = {"pool": pool_size, "varied": varied, "teacher": taught_by}
    check_folder(out, budget, seed, about)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, tokenizer = build_model(find_bundled(TEACHER))
    model = model.to(device=device, memory_format=torch.channels_last)
    teacher = Clip(find_bundled(TEACHER), device, dtype=torch.bfloat16)  # rounding is far below what is taught
    small, large = _pools(world, pool_size, seed, budget, functools.partial(_teach, teacher, model, tokenizer))
    for pool in (small, large):
        pool.fill(say, workers=budget.workers)
    exam = Exam(font, seed=7_000_000 + seed, count=exam_size, encode=encode_image)
    training = train_on_budget(
        model, functools.partial(_losses_of, varied=varied, device=device), _Draw(small, large, budget.batch, seed), budget,
        out, collate=collate, seed=seed, device=device, measure=functools.partial(exam, model, tokenizer),
        on_progress=on_progress, say=say, about=about,
    )  # fmt: skip
    calibration = list(world.draw_scenes(calibration_size, 8_000_000 + seed, "mixed"))
    return write_tiny_clip_vit(model, tokenizer, training, out, calibration, font=font, exam_size=exam_size)


def _pools(world: World, size: int, seed: int, budget: Budget, teach: Teach) -> tuple[Pool[Taught], Pool[Taught]]:
    """Pools of small images and, a quarter as many, of large ones."""
    fresh = (0, 0) if budget.workers else (max(1, budget.batch // 12), _LARGE_FRESH)
    small = functools.partial(render, world, seed, _SMALL_SIDE)
    large = functools.partial(render, world, seed + 1, _LARGE_SIDE)
    ask = functools.partial(_teach_all, teach)
    return Pool(small, size, fresh[0], _AT_ONCE, ask), Pool(large, max(1, size // 4), fresh[1], _AT_ONCE, ask)


def _losses_of(model: Any, batch: Batch, *, varied: float, device: str) -> dict[str, Tensor]:
    images, groups, text, teacher = (part.to(device, non_blocking=True) for part in batch[:4])
    x = prepare_images(images, batch.size, find_generator(device), varied)
    # attention by plain products: on CPUs its fused backward pass takes most of a step at these sizes
    kernel = sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()
    with torch.autocast(torch.device(device).type, torch.bfloat16), kernel:
        image = encode_image(model, x)
    return {
        "contrastive": compute_contrastive_loss(image, text, model.logit_scale.exp(), groups),
        "distillation": _DISTILLATION * compute_distillation_loss(image, teacher),
    }


def write_tiny_clip_vit(
    model: CLIP,
    tokenizer: Tokenizer,
    training: dict[str, float],
    out: Path,
    calibration: list[Scene],
    *,
    font: Path | None = None,
    exam_size: int = 300,
) -> dict[str, float]:
    """Write a folder that ``Clip`` reads, as ``write_tiny_clip`` does; the card's dense path is the best on ``calibration``."""
    card = Card(
        name="tiny-clip-vit",
        family="open_clip VisionTransformer",
        tier="S1",
        licence="Apache-2.0",
        code_licence="Apache-2.0",
        kind="clip",
        trained_on=f"captions of rendered scenes of the emoji world, and answers of {TEACHER}, which learnt from such captions",
        world="emoji",
        files=save_clip(model, tokenizer, MODEL, out),
        use=USE,
    )
    card.write(out)
    card = replace(card, use=USE | {"dense": find_best_path(out, calibration)})
    return finish_card(card, training, out, calibration, lambda folder: evaluate_dense_clip(folder, font, exam_size))


def find_best_path(folder: Path, scenes: list[Scene]) -> DensePath:
    """The way of reading a model's last block as a map that gives the highest ``measure_dense_iou`` on scenes."""
    return max(Clip(folder).paths, key=lambda path: measure_dense_iou(Clip(folder, use={"dense": path}), scenes))
