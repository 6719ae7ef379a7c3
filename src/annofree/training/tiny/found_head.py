"""FOUND's head, one 1 x 1 convolution on a frozen DINO's keys, trained without labels (CVPR 2023).

Its first targets are what the untrained seed takes for things, refined; then it teaches itself: its own refined masks, and its
own masks as they are.  The original does the latter for four fifths of a run, here the last tenth is left to it: on a tiny
DINO's keys more of it takes the head away from things.  The original refines with a bilateral solver, then fills holes; here
PAMR does, at a quarter of a patch, without filling (``refine="pamr"``), or nothing does (``"none"``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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
from annofree.errors import build_unknown_error
from annofree.features.dino import Dino
from annofree.features.saliency import find_background_patches
from annofree.hub.cards import Card, hash_file
from annofree.io.atomic import write_atomic
from annofree.ops.grids import resize_maps
from annofree.ops.pamr import refine_maps
from annofree.structures import Image
from annofree.training.tiny.budget import Budget, make_rng, summarize_effort, train_on_budget
from annofree.training.tiny.evaluate_saliency import evaluate_found, write_untrained

__all__ = ["BUDGET", "Refine", "compute_found_loss", "fit_found", "refine_patches", "write_found"]

Refine = Literal["pamr", "none"]
"""How masks are drawn to the edges of their image before they are targets."""

BUDGET = Budget(samples=880, batch=16, lr=5e-2, weight_decay=0.01, warmup=0.0)
"""What the bundled head took, 6 minutes on one core: 55 steps of 16 images where the original takes 500 of 50, and its
learning rate, which here falls along a cosine."""

_MIX: dict[Split, float] = {"mixed": 0.6, "cluttered": 0.2, "touching": 0.2}
_SEEDED = 0.9  # of a run, in which the seed is a target; 100 of the original's 500 steps
_FINE = 4  # cells of a mask that is refined, along the side of a patch


def refine_patches(image: Image, patches: Tensor, refine: Refine) -> Tensor:
    """Draw masks (K, h, w) bool of patches to the edges of an image; patches are in where half of their area is.

    A mask that loses half of itself on the way (IoU at most 0.5) stays as it was, as in the original.
    """
    if refine == "none":
        return patches
    h, w = patches.shape[1:]
    soft = refine_maps(image.pixels, resize_maps(patches.float(), (_FINE * h, _FINE * w)))
    drawn = F.adaptive_avg_pool2d((soft > 0.5).float(), (h, w)) >= 0.5
    both, either = ((a).sum((1, 2), keepdim=True) for a in (drawn & patches, drawn | patches))
    return torch.where(both > 0.5 * either, drawn, patches)


def compute_found_loss(logits: Tensor, drawn: Tensor, progress: float) -> Tensor:
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
    """Half of the images lose detail: shrunk and enlarged again."""
    if rng.random() < 0.5:
        return Image(pixels)
    height, width = pixels.shape[:2]
    scale = rng.uniform(0.25, 1.0)
    small = PILImage.fromarray(pixels).resize((round(width * scale), round(height * scale)), PILImage.Resampling.BILINEAR)
    return Image(np.asarray(small.resize((width, height), PILImage.Resampling.BILINEAR)))


class _Draw:
    """Draws the number-th image of a run, a fresh scene, with how much of the run is over."""

    def __init__(self, world: World, budget: Budget, seed: int) -> None:
        self.world, self.budget, self.seed = world, budget, seed

    def __call__(self, number: int) -> tuple[Image, float]:
        rng = make_rng("example", self.seed, number)
        split: Split = rng.choice(list(_MIX), p=list(_MIX.values()))
        return _softened(rng, self.world.draw_scene(rng, split).image), self.budget.compute_progress(
            number // self.budget.batch
        )


class _FoundBatch:
    """The loss of a head on images, and on how much of the run is over."""

    def __init__(self, dino: Dino, refine: Refine, tau: float) -> None:
        self.dino, self.refine, self.tau = dino, refine, tau

    def __call__(self, head: nn.Module, drawn: list[tuple[Image, float]]) -> dict[str, Tensor]:
        images, progress = [image for image, _ in drawn], drawn[0][1]
        maps = self.dino.extract_keys_and_attention(images)
        keys = torch.stack([k.values for k, _ in maps]).clone()  # read in inference mode, here an input of autograd
        logits = head(keys)[:, 0]
        if progress < _SEEDED:
            masks = torch.stack([~find_background_patches(k.values, a.values, self.tau) for k, a in maps])
        else:
            masks = logits.detach() > 0
        refined_masks = [refine_patches(i, m[None], self.refine)[0] for i, m in zip(images, masks, strict=True)]
        return {"entropy": compute_found_loss(logits, torch.stack(refined_masks), progress)}


@dataclass(frozen=True)
class _Training:
    """All that one training of a head needs but the DINO that it stands on."""

    # how much is learned from, and how fast
    budget: Budget
    # how targets are drawn to edges
    refine: Refine
    # threshold of the seed that is the first target (FOUND: 0.3)
    tau: float
    # of the scenes and the head's weights
    seed: int
    # NotoColorEmoji.ttf, where the system has none
    font: Path | None
    # scenes of a split that the head is evaluated on
    exam_size: int
    # cpu or cuda
    device: str
    # (done, total): steps
    on_progress: Callable[[int, int], None]
    # told of the log
    say: Callable[[str], None]

    def run(self, dino: Path, out: Path) -> dict[str, float]:
        """Train, write and examine a head on one DINO; returns the exam's figures."""
        model = Dino(dino, self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            head = nn.Conv2d(model.dimension, 1, 1).to(self.device)
        training = train_on_budget(
            head, _FoundBatch(model, self.refine, self.tau), _Draw(World(self.font), self.budget, self.seed), self.budget, out,
            collate=list, seed=self.seed, device=self.device, on_progress=self.on_progress, say=self.say,
            about={"refine": self.refine, "tau": self.tau, "dino": Card.read(dino).to_provenance()["sha256"]},
        )  # fmt: skip
        return write_found(head, training, out, dino, refine=self.refine, font=self.font, exam_size=self.exam_size)


def fit_found(
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
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """Train FOUND's head on the DINO of a folder, over scenes whose truth is never read; write it to ``out``.

    ``tau`` is the seed's threshold.  ``control`` repeats all of it, in ``out/untrained``, on random weights in the DINO's
    configuration, and adds those figures.  Returns the figures of ``evaluate_found`` on ``exam_size`` scenes a split.
    Raises MissingError without the emoji font, InputError for an unknown refinement.
    """
    if refine not in get_args(Refine):
        raise build_unknown_error("refinement", refine, get_args(Refine))
    training = _Training(budget, refine, tau, seed, font, exam_size, device, on_progress, say)
    figures = training.run(dino, out)
    if control:
        say("the control: the same on random weights")
        untrained = training.run(write_untrained(dino, out / "untrained" / "dino", seed), out / "untrained")
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
    """Write a head, ``model.safetensors`` as ``read_found_head`` reads it, and its card; returns its exam's figures.

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
        files={"model.safetensors": hash_file(out / "model.safetensors")},
    )
    card.write(out)
    figures = evaluate_found(out, font, exam_size, dino=dino)
    replace(card, figures=summarize_effort(training) | figures).write(out)
    return figures
