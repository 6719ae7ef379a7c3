"""FOUND's head, one 1 x 1 convolution on a frozen DINO's keys, trained without labels (CVPR 2023).

Its first targets are what the untrained seed takes for things, refined; then it teaches itself: its own refined masks, and its
own masks as they are.  The original does the latter for four fifths of a run, here the last tenth is left to it: on a tiny
DINO's keys more of it takes the head away from things.  The original refines with a bilateral solver, then fills holes; here
PAMR does, at a quarter of a patch, without filling (``refine="pamr"``), or nothing does (``"none"``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as PILImage
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from annofree.datasets.emoji.world import Split, World
from annofree.errors import unknown_name
from annofree.features.dino import Dino
from annofree.features.saliency import background_patches
from annofree.hub.cards import Card, sha256_of
from annofree.io.atomic import write_atomic
from annofree.ops.grids import resized
from annofree.ops.pamr import refined
from annofree.structures import Image
from annofree.training.tiny.evaluate_saliency import examine_found, write_untrained
from annofree.training.tiny.loop import Budget, fit

__all__ = ["BUDGET", "Refine", "found_loss", "refined_patches", "train_found", "write_found"]

Refine = Literal["pamr", "none"]
"""How masks are drawn to the edges of their picture before they are targets."""

BUDGET = Budget(samples=2_400, minutes=6, batch=16, lr=5e-2, weight_decay=0.01, warmup=0.0)
"""150 steps of 16 pictures where the original takes 500 of 50, and its learning rate, which here falls along a cosine."""

_MIX: dict[Split, float] = {"mixed": 0.6, "cluttered": 0.2, "touching": 0.2}
_SEEDED = 0.9  # of a run, in which the seed is a target; 100 of the original's 500 steps
_FINE = 4  # cells of a mask that is refined, along the side of a patch


def refined_patches(image: Image, patches: Tensor, refine: Refine) -> Tensor:
    """Draw masks (K, h, w) bool of patches to the edges of a picture; patches are in where half of their area is.

    A mask that loses half of itself on the way (IoU at most 0.5) stays as it was, as in the original.
    """
    if refine == "none":
        return patches
    h, w = patches.shape[1:]
    soft = refined(image.pixels, resized(patches.float(), (_FINE * h, _FINE * w)))
    drawn = F.adaptive_avg_pool2d((soft > 0.5).float(), (h, w)) >= 0.5
    both, either = ((a).sum((1, 2), keepdim=True) for a in (drawn & patches, drawn | patches))
    return torch.where(both > 0.5 * either, drawn, patches)


def found_loss(logits: Tensor, drawn: Tensor, progress: float) -> Tensor:
    """The loss of logits (B, h, w), given ``drawn`` (B, h, w) bool: refined seeds at first, then refined masks of logits > 0.

    For the first nine tenths of a run it is the cross-entropy to the refined seeds; after that 1.5 times the one to the head's
    own refined masks, plus 4 times the one to its masks as they are.  The original weighs its own refined masks by 1.5 from the
    first step on: a head whose first guess is the same everywhere can then never leave it, as 1.5 outweighs the seed's 1.
    """
    entropy = F.binary_cross_entropy_with_logits
    if progress < _SEEDED:
        return entropy(logits, drawn.to(logits))
    return 1.5 * entropy(logits, drawn.to(logits)) + 4.0 * entropy(logits, (logits > 0).to(logits))


def _softened(rng: np.random.Generator, pixels: npt.NDArray[np.uint8]) -> Image:
    """Half of the pictures lose detail: shrunk and enlarged again."""
    if rng.random() < 0.5:
        return Image(pixels)
    height, width = pixels.shape[:2]
    scale = rng.uniform(0.25, 1.0)
    small = PILImage.fromarray(pixels).resize((round(width * scale), round(height * scale)), PILImage.Resampling.BILINEAR)
    return Image(np.asarray(small.resize((width, height), PILImage.Resampling.BILINEAR)))


class _Lesson:
    """Draws batches of fresh scenes and gives the head's loss on them."""

    def __init__(self, dino: Dino, head: nn.Conv2d, world: World, seed: int, refine: Refine, tau: float) -> None:
        self.dino, self.head, self.world, self.refine, self.tau = dino, head, world, refine, tau
        self.rng = np.random.default_rng(seed)

    def __call__(self, progress: float, batch: int) -> Tensor:
        images = self._images(batch)
        maps = self.dino.keys_and_attention(images)
        keys = torch.stack([k.values for k, _ in maps]).clone()  # read in inference mode, here an input of autograd
        logits = self.head(keys)[:, 0]
        if progress < _SEEDED:
            masks = torch.stack([~background_patches(k.values, a.values, self.tau) for k, a in maps])
        else:
            masks = logits.detach() > 0
        drawn = [refined_patches(i, m[None], self.refine)[0] for i, m in zip(images, masks, strict=True)]
        return found_loss(logits, torch.stack(drawn), progress)

    def _images(self, count: int) -> list[Image]:
        splits = self.rng.choice(list(_MIX), count, p=list(_MIX.values()))
        return [_softened(self.rng, self.world.scene(self.rng, split).image) for split in splits]


@dataclass(frozen=True)
class _Course:
    """All that one training of a head needs but the DINO that it stands on."""

    budget: Budget
    refine: Refine
    tau: float
    seed: int
    font: Path | None
    device: str
    say: Callable[[str], None]
    every_minutes: float
    exam_size: int

    def take(self, dino: Path, out: Path) -> dict[str, float]:
        """Train, write and examine a head on one DINO; returns the exam's figures."""
        model = Dino(dino, self.device)
        torch.manual_seed(self.seed)
        head = nn.Conv2d(model.dimension, 1, 1).to(self.device)
        lesson = _Lesson(model, head, World(self.font), self.seed, self.refine, self.tau)
        step = partial(lesson, batch=self.budget.batch)
        training = fit(
            head, step, self.budget, out,
            measure=dict, say=self.say, every_minutes=self.every_minutes,
            generators=(lesson.rng,), about={"seed": self.seed, "refine": self.refine, "tau": self.tau},
        )  # fmt: skip
        return write_found(head, training, out, dino, refine=self.refine, font=self.font, exam_size=self.exam_size)


def train_found(
    out: Path,
    budget: Budget = BUDGET,
    *,
    dino: Path,
    refine: Refine = "pamr",
    tau: float = 0.3,
    seed: int = 0,
    font: Path | None = None,
    exam_size: int = 60,
    control: bool = True,
    device: str = "cpu",
    say: Callable[[str], None] = print,
    every_minutes: float = 1.0,
) -> dict[str, float]:
    """Train FOUND's head on the DINO of a folder, over scenes whose truth is never read; write it to ``out``.

    ``tau`` is the seed's threshold.  ``control`` repeats all of it, in ``out/untrained``, on random weights in the DINO's
    configuration, and adds those figures.  Returns the figures of ``examine_found`` on ``exam_size`` scenes a split.
    Raises MissingError without the emoji font, InputError for an unknown refinement.
    """
    if refine not in get_args(Refine):
        raise unknown_name("refinement", refine, get_args(Refine))
    course = _Course(budget, refine, tau, seed, font, device, say, every_minutes, exam_size)
    figures = course.take(dino, out)
    if control:
        say("the control: the same on random weights")
        untrained = course.take(write_untrained(dino, out / "untrained" / "dino", seed), out / "untrained")
        figures |= {f"{name}, random weights": value for name, value in untrained.items() if "everything" not in name}
        card = Card.read(out)
        replace(card, figures={**card.figures, **figures}).write(out)
    return figures


def write_found(
    head: nn.Conv2d,
    training: dict[str, float],
    out: Path,
    dino: Path,
    *,
    refine: Refine = "pamr",
    font: Path | None = None,
    exam_size: int = 60,
) -> dict[str, float]:
    """Write a head, ``model.safetensors`` as ``found_head`` reads it, and its card; returns its exam's figures.

    ``training`` tells how far it got: samples, minutes, loss.
    """
    out.mkdir(parents=True, exist_ok=True)
    state = {f"decoder.{name}": value.detach().cpu().contiguous() for name, value in head.state_dict().items()}
    write_atomic(out / "model.safetensors", lambda p: save_file(state, p, metadata={"format": "pt"}))
    below = Card.read(dino)
    card = Card(
        name="tiny-found" if below.name == "tiny-dino" else f"found-on-{below.name}",
        kind="saliency",
        family=f"FOUND head on the keys of {below.name}",
        tier=below.tier,
        licence="Apache-2.0",
        code_licence="Apache-2.0",
        trained_on=f"rendered scenes of the emoji world, without captions, masks or names; refinement of targets: {refine}",
        world="emoji",
        files={"model.safetensors": sha256_of(out / "model.safetensors")},
    )
    card.write(out)
    figures = examine_found(out, font, exam_size, dino=dino)
    effort = {f"training {name}": training[name] for name in ("samples", "minutes", "loss") if name in training}
    replace(card, figures=effort | figures).write(out)
    return figures
