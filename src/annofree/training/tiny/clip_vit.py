"""The bundled tiny CLIP ViT: open_clip's VisionTransformer, trained on the emoji world in the text space of ``tiny-clip``.

The text tower, its tokens and the logit scale are those of ``tiny-clip``, copied and frozen, so features of both image towers
meet the same words.  The image tower learns from captions and from a teacher, the image tower of ``tiny-clip``, whose
supervision is captions as well (tier S1); both meet the mean of its patch tokens, so that tokens come to name what they show.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.model import CLIP
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from annofree.datasets.emoji.world import Scene, World
from annofree.features.clip import Clip
from annofree.features.clip_network import load_clip
from annofree.features.clip_vit import VitTower
from annofree.features.tokenizer import Tokenizer
from annofree.hub.cards import Card, bundled
from annofree.protocols import DensePath
from annofree.training.tiny import clip as tiny_clip
from annofree.training.tiny.clip import Exam, Pool, contrastive_loss, finish_card, prepared, save_clip
from annofree.training.tiny.evaluate import dense_iou, examine_dense_clip
from annofree.training.tiny.loop import Budget, fit

__all__ = ["BUDGET", "MODEL", "POOL", "TEACHER", "distillation_loss", "encode_image", "train_tiny_clip_vit"]

TEACHER = "tiny-clip"
"""The bundled model that gives the text tower and teaches."""
MODEL: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 128, "layers": 6, "width": 192, "head_width": 32, "patch_size": 16, "pool_type": "avg"},
    "text_cfg": tiny_clip.MODEL["text_cfg"],
}
"""open_clip's configuration; the vocabulary's size is that of the teacher's."""
USE: dict[str, Any] = {
    "dense_side": 256,
    "whole_side": 128,
    **{key: tiny_clip.USE[key] for key in ("templates", "neutral", "warning")},
}
"""How the card says that the model is best used; the dense path comes from its exam."""
BUDGET = Budget(samples=900_000, minutes=70, batch=96, lr=1e-3)

POOL = 12_000
"""Pictures of 128 px rendered ahead; there are a quarter as many of 256 px."""

_LARGE_SIDE = 256
_SIZES, _SIZE_ODDS = (96, 112, 128, 160, 192, 256), (0.33, 0.25, 0.22, 0.11, 0.06, 0.03)
_DISTILLATION = 5.0  # of the loss; the frozen logit scale of about 26 multiplies the other part's gradients
_AT_ONCE = 64


@dataclass
class _Lessons:
    """A pool whose pictures come with what the frozen towers say: the text feature of the caption and the teacher's answer."""

    pool: Pool
    teach: Callable[[Tensor, list[str]], Tensor]
    answers: Tensor
    waiting: int = 0

    @classmethod
    def prepare(cls, pool: Pool, teach: Callable[[Tensor, list[str]], Tensor]) -> _Lessons:
        size = len(pool.captions)
        rows = [np.arange(start, min(start + _AT_ONCE, size)) for start in range(0, size, _AT_ONCE)]
        return cls(pool, teach, torch.cat([teach(*pool.at(r)) for r in rows]))

    def refresh(self, count: int) -> None:
        """Replace the oldest ``count`` pictures, many at a time: the teacher sees whole batches."""
        self.waiting = min(self.waiting + count, len(self.pool.captions))
        if self.waiting < min(_AT_ONCE, len(self.pool.captions)):
            return
        rows = (self.pool.next + np.arange(self.waiting)) % len(self.pool.captions)
        self.pool.refresh(self.waiting)
        self.answers[torch.from_numpy(rows)] = self.teach(*self.pool.at(rows))
        self.waiting = 0

    def draw(self, count: int) -> tuple[Tensor, list[str], Tensor, Tensor]:
        """Images (B, side, side, 3), captions, and their unit text and teacher's features, each (B, D)."""
        rows = self.pool.pick(count)
        text, teacher = self.answers[torch.from_numpy(rows)].unbind(1)
        return *self.pool.at(rows), text, teacher


def encode_image(model: CLIP, images: Tensor) -> Tensor:
    """Unit image features (B, D) of normalised pictures (B, 3, s, s) of any size that is a multiple of 16 px."""
    return F.normalize(VitTower(model.visual).whole(images).float(), dim=-1)


def distillation_loss(image: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine between (B, D) unit features of the student and of the teacher, averaged."""
    return 1 - (image * teacher).sum(-1).mean()


def new_model(folder: Path) -> tuple[CLIP, Tokenizer]:
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
    return torch.stack([text, teacher.squares(images.permute(0, 3, 1, 2).float() / 255)], 1).cpu().clone()


def train_tiny_clip_vit(
    out: Path,
    budget: Budget = BUDGET,
    *,
    seed: int = 0,
    font: Path | None = None,
    pool_size: int = POOL,
    exam_size: int = 300,
    calibration_size: int = 300,
    device: str = "cpu",
    say: Callable[[str], None] = print,
    every_minutes: float = 5.0,
) -> dict[str, float]:
    """Render, train, evaluate and write the tiny CLIP ViT to ``out`` in open_clip's folder layout.

    Writes what ``train_tiny_clip`` writes and returns the figures measured on ``exam_size`` scenes drawn from other seeds;
    ``calibration_size`` scenes fit the presence of names and choose how the last block is read as a map.
    Raises MissingError without the emoji font.
    """
    torch.manual_seed(seed)
    world = World(font)
    model, tokenizer = new_model(bundled(TEACHER))
    model = model.to(device=device, memory_format=torch.channels_last)
    teacher = Clip(bundled(TEACHER), device, dtype=torch.bfloat16)  # rounding is far below what is taught
    teach = functools.partial(_teach, teacher, model, tokenizer)
    small = _Lessons.prepare(Pool.render(world, pool_size, seed, say), teach)
    large = _Lessons.prepare(Pool.render(world, max(1, pool_size // 4), seed + 1, say, _LARGE_SIDE), teach)
    say("the teacher has seen all pictures")
    exam = Exam(font, seed=7_000_000 + seed, count=exam_size, encode=encode_image)
    generator = torch.Generator().manual_seed(seed)
    rng: np.random.Generator = small.pool.rng

    def loss_of(progress: float) -> Tensor:
        size = int(rng.choice(_SIZES, p=_SIZE_ODDS))
        lessons = large if size > small.pool.images.shape[1] * 1.25 else small
        lessons.refresh(max(1, budget.batch // 12))
        images, captions, text, answer = lessons.draw(budget.batch)
        x = prepared(images, size, generator).to(device)
        # attention by plain products: on CPUs its fused backward pass takes most of a step at these sizes
        with torch.autocast(torch.device(device).type, torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            image = encode_image(model, x)
        told = contrastive_loss(image, text.to(device), model.logit_scale.exp(), captions)
        return told + _DISTILLATION * distillation_loss(image, answer.to(device))

    measure = functools.partial(exam, model, tokenizer)
    figures = fit(
        model, loss_of, budget, out,
        measure=measure, say=say, every_minutes=every_minutes,
        generators=(generator, small.pool.rng, large.pool.rng), about={"seed": seed, "pool": pool_size},
    )  # fmt: skip
    calibration = list(world.scenes(calibration_size, 8_000_000 + seed, "mixed"))
    return write_tiny_clip_vit(model, tokenizer, figures, out, calibration, font=font, exam_size=exam_size)


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
    card = replace(card, use=USE | {"dense": best_path(out, calibration)})
    return finish_card(card, training, out, calibration, lambda folder: examine_dense_clip(folder, font, exam_size))


def best_path(folder: Path, scenes: list[Scene]) -> DensePath:
    """The way of reading a model's last block as a map that gives the highest ``dense_iou`` on scenes."""
    return max(Clip(folder).paths, key=lambda path: dense_iou(Clip(folder, use={"dense": path}), scenes))
