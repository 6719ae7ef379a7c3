"""What the tiny SAM learns from: scenes of the emoji world with prompts, and masks of objects and of their parts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from annofree.datasets.emoji.world import Scene, Split, World
from annofree.ops.boxes import compute_tight_boxes
from annofree.training.tiny.budget import Budget, make_rng
from annofree.training.tiny.pool import Pool

__all__ = [
    *("MEAN", "PROMPTS", "SIDE", "STD", "Lesson", "LessonDraw", "draw_points", "draw_targets"),
    *("jitter_boxes", "render_scenes", "to_pixels"),
]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE = 256
"""Height and width of a scene in px."""
PROMPTS = 8
"""Prompts of a scene."""

_MIX: dict[Split, float] = {"mixed": 0.45, "touching": 0.3, "cluttered": 0.25}
_UNBALANCED = 0.48  # of a run, from where on the loss is plain
_MIN_AREA = 60  # px of a target
_KINDS, _KIND_ODDS = ("box", "box+point", "point"), (0.5, 0.2, 0.3)


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


def render_scenes(world: World, seed: int, numbers: Iterable[int]) -> list[Scene]:
    """Draw the scenes of some numbers, each from its number alone, with at least one object."""
    drawn = []
    for number in numbers:
        rng = make_rng("picture", seed, number)
        split: Split = rng.choice(list(_MIX), p=list(_MIX.values()))
        scene = world.draw_scene(rng, split, SIDE)
        while not scene.objects:
            scene = world.draw_scene(rng, split, SIDE)
        drawn.append(scene)
    return drawn


class LessonDraw:
    """Draws the number-th lesson of a run: a scene of the pool with prompts, of a kind that all of its step share."""

    def __init__(self, pool: Pool[Scene], budget: Budget, seed: int) -> None:
        self.pool, self.budget, self.seed = pool, budget, seed

    def __call__(self, number: int) -> Lesson:
        step, rng = number // self.budget.batch, make_rng("example", self.seed, number)
        scene = self.pool.pick(step, rng)
        masks = draw_targets(rng, scene, PROMPTS)
        kind = str(make_rng("step", self.seed, step).choice(_KINDS, p=_KIND_ODDS))
        boxes, points = jitter_boxes(rng, compute_tight_boxes(masks)), draw_points(rng, masks)
        return Lesson(to_pixels([scene], rng)[0], masks, boxes, points, kind, _balance(self.budget.compute_progress(step)))


def draw_targets(rng: np.random.Generator, scene: Scene, count: int) -> npt.NDArray[np.bool_]:
    """Masks (count, H, W) of objects and of color parts, drawn with replacement."""
    pieces = scene.layout.astype(np.int32) * 256 + scene.parts
    ids, areas = np.unique(pieces[(scene.layout > 0) & (scene.parts > 0)], return_counts=True)
    ids = ids[areas >= _MIN_AREA]
    objects = rng.integers(1, len(scene.objects) + 1, size=count)
    whole = rng.random(count) < 0.65
    if not len(ids):
        whole[:] = True
    drawn = [scene.layout == o if w else pieces == rng.choice(ids) for o, w in zip(objects, whole, strict=True)]
    return np.stack(drawn)


def jitter_boxes(rng: np.random.Generator, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Boxes as a method would propose them: each side off by some percent of the size, half of them exact."""
    size = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    noise = rng.normal(0, 0.06, boxes.shape) * (rng.random((len(boxes), 1)) < 0.5)
    jittered: npt.NDArray[np.float32] = np.clip(boxes + noise.clip(-0.15, 0.15) * size, 0, SIDE).astype(np.float32)
    return jittered


def draw_points(rng: np.random.Generator, masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """One random pixel (N, 1, 2) x y inside each mask."""
    flat = [rng.choice(np.flatnonzero(m)) for m in masks]
    y, x = np.unravel_index(flat, masks.shape[1:])
    return np.stack([x + 0.5, y + 0.5], 1)[:, None].astype(np.float32)


def to_pixels(scenes: list[Scene], rng: np.random.Generator | None = None) -> Tensor:
    """Normalized pixels (B, 3, H, W) of scenes; a generator makes them brighter or darker."""
    x = torch.from_numpy(np.stack([s.image for s in scenes])).permute(0, 3, 1, 2).float() / 255
    if rng is not None:
        x = (x * torch.from_numpy(rng.uniform(0.8, 1.2, (len(x), 3, 1, 1)).astype(np.float32))).clamp(0, 1)
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def _balance(progress: float) -> float:
    """How much the loss cares for the rarer side of a mask: all of it at first, nothing in the second half of a run.

    Without it the masks collapse to nothing; with it to the end they come out too large.
    """
    return min(1.0, max(0.0, (_UNBALANCED - progress) / 0.05))
