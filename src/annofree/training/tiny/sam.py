"""The bundled tiny SAM: transformers' Sam2Model, trained on class-agnostic masks of the emoji world.

Targets are whole objects and their parts of one colour, prompts are boxes, boxes with a point, and points alone, so it
behaves as the large ones do: it draws any edge that a prompt means, and does not know objects.  No class name is seen.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Sam2Config, Sam2Model

from annofree.datasets.emoji.world import Scene, Split, World
from annofree.hub.cards import Card, sha256_of
from annofree.io.tensors import write_half
from annofree.ops.boxes import tight_boxes
from annofree.training.tiny.budget import Budget, check_folder, effort, rng_of, train_on_budget
from annofree.training.tiny.evaluate import examine_sam
from annofree.training.tiny.pool import Pool

__all__ = ["BUDGET", "MEAN", "POOL", "STD", "config", "fit_tiny_sam"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BUDGET = Budget(samples=55_000, batch=8, lr=1e-3, weight_decay=0.02)
"""What the bundled model took: 175 minutes on one core that was shared with other work."""

POOL = 5_000
"""Pictures rendered ahead."""

_SIDE = 256
_TARGET_SIDE = 128  # where the loss compares masks
_PROMPTS = 8  # an image
_MIX: dict[Split, float] = {"mixed": 0.45, "touching": 0.3, "cluttered": 0.25}
_UNBALANCED = 0.48  # of a run, from where on the loss is plain
_MIN_AREA = 60  # px of a target
_KINDS, _KIND_ODDS = ("box", "box+point", "point"), (0.5, 0.2, 0.3)


def config() -> Sam2Config:
    """The tiny model: a four-stage Hiera at strides 4 to 32 for 256 x 256 px, and the usual SAM 2 decoder, narrow."""
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "image_size": [_SIDE, _SIDE],
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
        prompt_encoder_config={"hidden_size": width, "image_size": _SIDE, "patch_size": 16},
        mask_decoder_config={
            "hidden_size": width,
            "mlp_dim": 256,
            "num_attention_heads": 4,
            "attention_downsample_rate": 1,
            "iou_head_hidden_dim": width,
            "dynamic_multimask_via_stability": False,
        },
    )


class Lesson(NamedTuple):
    """A scene with P prompts of a ``kind``: pixels (3, H, W), masks (P, H, W) bool, boxes (P, 4), points (P, 1, 2).

    ``balance`` is that of the loss at this step.
    """

    pixels: Tensor
    masks: npt.NDArray[np.bool_]
    boxes: npt.NDArray[np.float32]
    points: npt.NDArray[np.float32]
    kind: str
    balance: float


def _scenes(world: World, seed: int, numbers: Iterable[int]) -> list[Scene]:
    """Draw the scenes of some numbers, each from its number alone, with at least one object."""
    drawn = []
    for number in numbers:
        rng = rng_of("picture", seed, number)
        split: Split = rng.choice(list(_MIX), p=list(_MIX.values()))
        scene = world.scene(rng, split, _SIDE)
        while not scene.objects:
            scene = world.scene(rng, split, _SIDE)
        drawn.append(scene)
    return drawn


class _Draw:
    """Draws the number-th lesson of a run: a scene of the pool with prompts, of a kind that all of its step share."""

    def __init__(self, pool: Pool[Scene], budget: Budget, seed: int) -> None:
        self.pool, self.budget, self.seed = pool, budget, seed

    def __call__(self, number: int) -> Lesson:
        step, rng = number // self.budget.batch, rng_of("example", self.seed, number)
        scene = self.pool.pick(step, rng)
        masks = _targets(rng, scene, _PROMPTS)
        kind = str(rng_of("step", self.seed, step).choice(_KINDS, p=_KIND_ODDS))
        boxes, points = _jittered(rng, tight_boxes(masks)), _inner_points(rng, masks)
        return Lesson(_pixels([scene], rng)[0], masks, boxes, points, kind, _balance(self.budget.progress(step)))


def _targets(rng: np.random.Generator, scene: Scene, count: int) -> npt.NDArray[np.bool_]:
    """Masks (count, H, W) of objects and of colour parts, drawn with replacement."""
    pieces = scene.layout.astype(np.int32) * 256 + scene.parts
    ids, areas = np.unique(pieces[(scene.layout > 0) & (scene.parts > 0)], return_counts=True)
    ids = ids[areas >= _MIN_AREA]
    objects = rng.integers(1, len(scene.objects) + 1, size=count)
    whole = rng.random(count) < 0.65
    if not len(ids):
        whole[:] = True
    drawn = [scene.layout == o if w else pieces == rng.choice(ids) for o, w in zip(objects, whole, strict=True)]
    return np.stack(drawn)


def _jittered(rng: np.random.Generator, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Boxes as a method would propose them: each side off by some percent of the size, half of them exact."""
    size = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    noise = rng.normal(0, 0.06, boxes.shape) * (rng.random((len(boxes), 1)) < 0.5)
    jittered: npt.NDArray[np.float32] = np.clip(boxes + noise.clip(-0.15, 0.15) * size, 0, _SIDE).astype(np.float32)
    return jittered


def _inner_points(rng: np.random.Generator, masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """One random pixel (N, 1, 2) x y inside each mask."""
    flat = [rng.choice(np.flatnonzero(m)) for m in masks]
    y, x = np.unravel_index(flat, masks.shape[1:])
    return np.stack([x + 0.5, y + 0.5], 1)[:, None].astype(np.float32)


def _pixels(scenes: list[Scene], rng: np.random.Generator | None = None) -> Tensor:
    x = torch.from_numpy(np.stack([s.image for s in scenes])).permute(0, 3, 1, 2).float() / 255
    if rng is not None:
        x = (x * torch.from_numpy(rng.uniform(0.8, 1.2, (len(x), 3, 1, 1)).astype(np.float32))).clamp(0, 1)
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def _balance(progress: float) -> float:
    """How much the loss cares for the rarer side of a mask: all of it at first, nothing in the second half of a run.

    Without it the masks collapse to nothing; with it to the end they come out too large.
    """
    return min(1.0, max(0.0, (_UNBALANCED - progress) / 0.05))


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
        model = Sam2Model(config())
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
    step = _SIDE // _TARGET_SIDE
    target = masks[..., step // 2 :: step, step // 2 :: step].to(logits).unsqueeze(2)
    logits = F.interpolate(logits.flatten(0, 2)[None], size=(_TARGET_SIDE, _TARGET_SIDE), mode="bilinear")[0]
    logits = logits.view(len(lessons), _PROMPTS, -1, _TARGET_SIDE, _TARGET_SIDE)
    loss = _mask_loss(logits, target.expand_as(logits), lessons[0].balance)
    best = loss.min(2).values.mean() + 0.05 * loss.mean()
    return {"masks": best, "IoU": F.mse_loss(scores, _iou(logits.detach(), target))}


class _Exam:
    """Unseen scenes: IoU of a box prompt on objects above 32 x 32 px, by size, and of a centre-most point."""

    def __init__(self, font: Path | None, seed: int, count: int) -> None:
        world = World(font, held_out=0.3)
        self.scenes = [s for split in ("plain", "cluttered") for s in world.scenes(count // 2, seed, split) if s.objects]

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
            boxes = torch.from_numpy(tight_boxes(masks))[None].to(device)
            points = torch.from_numpy(_inner_points(rng, masks))[None].to(device)
            for kind, found in (("box", box), ("point", point)):
                logits, _ = _decode(model, _pixels([scene]).to(device), kind, boxes, points)
                full = F.interpolate(logits[0].cpu(), size=(_SIDE, _SIDE), mode="bilinear")
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
    pool = Pool(functools.partial(_scenes, world, seed), pool_size, fresh=1)
    pool.fill(say, "scenes", every=1000)
    model = _new_model(seed).to(device)
    exam = _Exam(font, seed=7_000_000 + seed, count=exam_size)
    training = train_on_budget(
        model, functools.partial(_losses_of, device=device), _Draw(pool, budget, seed), budget, out,
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
    config().save_pretrained(out)
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
        files={name: sha256_of(out / name) for name in ("config.json", "model.safetensors")},
        use={"mean": MEAN, "std": STD},
    )
    card.write(out)
    figures = examine_sam(out, font, exam_size)
    replace(card, figures=effort(training) | figures).write(out)
    return figures
