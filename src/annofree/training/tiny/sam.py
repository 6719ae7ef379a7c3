"""The bundled tiny SAM: transformers' Sam2Model, trained on class-agnostic masks of the emoji world.

Targets are whole objects and their parts of one color, prompts are boxes, boxes with a point, and points alone, so it
behaves as the large ones do: it draws any edge that a prompt means, and does not know objects.  No class name is seen.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Sam2Config, Sam2Model

from annofree.datasets.emoji.world import Scene, World
from annofree.hub.cards import Card, hash_file
from annofree.io.tensors import write_half
from annofree.ops.boxes import compute_tight_boxes
from annofree.training.tiny.budget import Budget, check_folder, summarize_effort, train_on_budget
from annofree.training.tiny.evaluate import evaluate_sam
from annofree.training.tiny.pool import Pool
from annofree.training.tiny.sam_lessons import (
    MEAN,
    PROMPTS,
    SIDE,
    STD,
    Lesson,
    LessonDraw,
    draw_points,
    render_scenes,
    to_pixels,
)

__all__ = ["BUDGET", "POOL", "build_config", "fit_tiny_sam"]

BUDGET = Budget(samples=55_000, batch=8, lr=1e-3, weight_decay=0.02)
"""Took 175 minutes on a shared core; the bundled model saw 2.2 times as many on a GPU (`benchmarks/train_tiny_models.py`)."""

POOL = 5_000
"""Images rendered ahead."""

_TARGET_SIDE = 128  # where the loss compares masks


def build_config() -> Sam2Config:
    """The tiny model: a four-stage Hiera at strides 4 to 32 for 256 x 256 px, and the usual SAM 2 decoder, narrow."""
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "image_size": [SIDE, SIDE],
        "hidden_size": 32,
        "embed_dim_per_stage": [32, 64, 128, 192],
        "num_attention_heads_per_stage": [1, 2, 4, 6],
        "blocks_per_stage": [1, 2, 4, 1],
        "window_size_per_stage": [8, 8, 16, 8],
        "global_attention_blocks": [],
        "mlp_ratio": 3.0,
    }
    width = 96
    return Sam2Config(
        vision_config={
            "backbone_config": backbone,
            "backbone_channel_list": [192, 128, 64, 32],
            "backbone_feature_sizes": [[64, 64], [32, 32], [16, 16]],
            "fpn_hidden_size": width,
        },
        prompt_encoder_config={"hidden_size": width, "image_size": SIDE, "patch_size": 16},
        mask_decoder_config={
            "hidden_size": width,
            "mlp_dim": 256,
            "num_attention_heads": 4,
            "attention_downsample_rate": 1,
            "iou_head_hidden_dim": width,
            "dynamic_multimask_via_stability": False,
        },
    )


def _mask_loss(logits: Tensor, target: Tensor, balance: float) -> Tensor:
    """Cross-entropy, by a share ``balance`` class-balanced, plus dice over the last two axes; (..., H, W) to (...)."""
    area = target.sum((-2, -1), keepdim=True)
    size = target.shape[-1] * target.shape[-2]
    weight = torch.where(target > 0, 0.5 / area.clamp(min=1), 0.5 / (size - area).clamp(min=1))
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    balanced, plain = (entropy * weight).sum((-2, -1)), entropy.mean((-2, -1))
    p = logits.sigmoid()
    dice = 1 - (2 * (p * target).sum((-2, -1)) + 1) / (p.sum((-2, -1)) + area[..., 0, 0] + 1)
    return balance * balanced + dice + 2 * plain


def _iou(logits: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of logits > 0 with a {0, 1} target, over the last two axes."""
    found = (logits > 0).float()
    both = (found * target).sum((-2, -1))
    return both / (found.sum((-2, -1)) + target.sum((-2, -1)) - both).clamp(min=1)


def _new_model(seed: int) -> Sam2Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Sam2Model(build_config())
    model.set_attn_implementation("eager")  # 1.4 times faster to train than the fused kernel on a CPU
    positions = model.shared_image_embedding.positional_embedding.data
    # long waves as well as short ones: with short ones alone a pixel inside a box is a stranger to its corners
    positions *= torch.logspace(-1.1, 0.1, positions.shape[1])
    model.prompt_encoder.shared_embedding.positional_embedding.data.copy_(positions)  # one code for pixels and prompts
    return model


def _decode(model: Sam2Model, pixels: Tensor, kind: str, boxes: Tensor | None, points: Tensor | None) -> tuple[Tensor, Tensor]:
    """Low-resolution logits (B, P, M, h, w) and predicted IoU (B, P, M); M is 3 for points alone, else 1."""
    with torch.autocast(pixels.device.type, torch.bfloat16):
        features = model.get_image_features(pixels).fpn_hidden_states
    batch = len(pixels)
    levels = [
        f.float().permute(1, 2, 0).reshape(batch, -1, *size)
        for f, size in zip(features, model.backbone_feature_sizes, strict=True)
    ]
    levels[-1] = levels[-1] + model.no_memory_embedding.view(1, -1, 1, 1)
    out = model(
        image_embeddings=levels,
        input_boxes=boxes if "box" in kind else None,
        input_points=points if "point" in kind else None,
        multimask_output=kind == "point",
    )
    return out.pred_masks, out.iou_scores


def _losses_of(model: Any, lessons: list[Lesson], *, device: str) -> dict[str, Tensor]:
    masks, boxes, points = (torch.from_numpy(np.stack([lesson[part] for lesson in lessons])).to(device) for part in (1, 2, 3))
    pixels = torch.stack([lesson.pixels for lesson in lessons]).to(device)
    logits, scores = _decode(model, pixels, lessons[0].kind, boxes, points)
    step = SIDE // _TARGET_SIDE
    target = masks[..., step // 2 :: step, step // 2 :: step].to(logits).unsqueeze(2)
    logits = F.interpolate(logits.flatten(0, 2)[None], size=(_TARGET_SIDE, _TARGET_SIDE), mode="bilinear")[0]
    logits = logits.view(len(lessons), PROMPTS, -1, _TARGET_SIDE, _TARGET_SIDE)
    loss = _mask_loss(logits, target.expand_as(logits), lessons[0].balance)
    best = loss.min(2).values.mean() + 0.05 * loss.mean()
    return {"masks": best, "IoU": F.mse_loss(scores, _iou(logits.detach(), target))}


class _Exam:
    """Unseen scenes: IoU of a box prompt on objects above 32 x 32 px, by size, and of a centre-most point."""

    def __init__(self, font: Path | None, seed: int, count: int) -> None:
        world = World(font, held_out=0.3)
        self.scenes = [s for split in ("plain", "cluttered") for s in world.draw_scenes(count // 2, seed, split) if s.objects]

    @torch.inference_mode()
    def __call__(self, model: Sam2Model) -> dict[str, float]:
        model.eval()
        device = next(model.parameters()).device
        rng = np.random.default_rng(0)
        box: list[float] = []
        point: list[float] = []
        area: list[int] = []
        for scene in self.scenes:
            masks = np.stack([scene.mask(i) for i in range(len(scene.objects))])
            target = torch.from_numpy(masks)[:, None].float()
            area += masks.sum((1, 2)).tolist()
            boxes = torch.from_numpy(compute_tight_boxes(masks))[None].to(device)
            points = torch.from_numpy(draw_points(rng, masks))[None].to(device)
            for kind, found in (("box", box), ("point", point)):
                logits, _ = _decode(model, to_pixels([scene]).to(device), kind, boxes, points)
                full = F.interpolate(logits[0].cpu(), size=(SIDE, SIDE), mode="bilinear")
                found += _iou(full, target).max(1).values.tolist()
        model.train()
        boxes_, points_, areas = np.array(box), np.array(point), np.array(area)
        return {
            "box_iou": float(boxes_.mean()),
            "box_iou_over_32": float(boxes_[areas > 32**2].mean()),
            "box_iou_over_60": float(boxes_[areas > 60**2].mean()),
            "point_iou_best_of_3": float(points_.mean()),
        }


def fit_tiny_sam(
    out: Path,
    budget: Budget = BUDGET,
    *,
    seed: int = 0,
    font: Path | None = None,
    pool_size: int = POOL,
    exam_size: int = 60,
    device: str = "cpu",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """Render, train, evaluate and write the tiny SAM to ``out`` in transformers' folder layout.

    Returns the figures measured on ``exam_size`` scenes drawn from other seeds.  Raises MissingError without the emoji font,
    InputError where ``out`` holds a run with other settings.
    """
    world, about = World(font), {"pool": pool_size}
    check_folder(out, budget, seed, about)
    pool: Pool[Scene] = Pool(functools.partial(render_scenes, world, seed), pool_size, fresh=0 if budget.workers else 1)
    pool.fill(say, "scenes", every=1000, workers=budget.workers)
    model = _new_model(seed).to(device)
    exam = _Exam(font, seed=7_000_000 + seed, count=exam_size)
    training = train_on_budget(
        model, functools.partial(_losses_of, device=device), LessonDraw(pool, budget, seed), budget, out,
        collate=list, seed=seed, device=device, measure=lambda: exam(model),
        on_progress=on_progress, say=say, about=about,
    )  # fmt: skip
    return write_tiny_sam(model, training, out, font=font, exam_size=exam_size)


def write_tiny_sam(
    model: Sam2Model, training: dict[str, float], out: Path, *, font: Path | None = None, exam_size: int = 150
) -> dict[str, float]:
    """Write configuration, weights (fp16) and card to a folder that ``Sam`` reads, and return its exam's figures.

    ``training`` tells how far it got: samples, minutes, loss.
    """
    out.mkdir(parents=True, exist_ok=True)
    build_config().save_pretrained(out)
    write_half(out / "model.safetensors", model.state_dict())
    card = Card(
        name="tiny-sam",
        family="transformers Sam2Model",
        tier="S2",
        licence="Apache-2.0",
        code_licence="Apache-2.0",
        kind="sam",
        trained_on="class-agnostic masks of objects and colour parts in rendered scenes of the emoji world",
        world="emoji",
        files={name: hash_file(out / name) for name in ("config.json", "model.safetensors")},
        use={"mean": MEAN, "std": STD},
    )
    card.write(out)
    figures = evaluate_sam(out, font, exam_size)
    replace(card, figures=summarize_effort(training) | figures).write(out)
    return figures
