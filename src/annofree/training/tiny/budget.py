"""How much a tiny model learns from, and how fast: the course, the optimizer and the log of its run through the one loop.

All that a tiny training draws follows from its seed and a number: of an image of the pool, of an example or of a step
(``make_rng``).  So a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import nn

from annofree.errors import InputError
from annofree.training.engine.checkpoint import CHECKPOINT, restore_state
from annofree.training.engine.distributed import DistributedContext
from annofree.training.engine.loop import TrainCallbacks, TrainConfig, train
from annofree.training.engine.lr_schedules import Cosine
from annofree.training.engine.state import Losses

__all__ = ["Budget", "check_folder", "find_generator", "make_rng", "summarize_effort", "train_on_budget"]

T = TypeVar("T")

_LINES = 20  # of the log, with a checkpoint each, in a run
_MORE = 100  # times the steps that a run by time was guessed to have, after which it ends in any case
_DRAWN = {"picture": 1, "example": 2, "step": 3}


@dataclass(frozen=True)
class Budget:
    """How much a run learns from and how fast; the learning rate rises, then falls to zero along half a cosine."""

    # images that are learned from, rounded up to whole batches
    samples: int
    # images a step
    batch: int
    # learning rate of AdamW where the rise ends
    lr: float
    # AdamW's, of matrices; vectors, such as biases and the weights of norms, have none
    weight_decay: float = 0.05
    # share of the steps in which the learning rate rises
    warmup: float = 0.03
    # bound on the norm of the gradient over all weights
    clip: float = 1.0
    # minutes, earlier calls included, after which a call ends; one with more of them goes on.  None for no limit
    minutes: float | None = None
    # whether the learning rate falls with the ``minutes`` and not with the samples, of which there are as many as come; for
    # machines whose speed is not known beforehand.  Such a run cannot be made again to the same weights
    paced: bool = False
    # processes that draw examples ahead; 0 draws them in turn
    workers: int = 0

    def __post_init__(self) -> None:
        if self.paced and not self.minutes:
            raise InputError("expected minutes for a learning rate that falls with them, got none; pass --minutes")

    @property
    def steps(self) -> int:
        """Steps in all; about as many, where time tells when it is over."""
        return -(-self.samples // self.batch)

    def compute_progress(self, step: int) -> float:
        """How much of the run is over before a step, 0 .. 1."""
        return min(1.0, step / self.steps)


def make_rng(drawn: Literal["picture", "example", "step"], seed: int, number: int) -> np.random.Generator:
    """What the number-th image of a pool, example of a run, or step is drawn with."""
    return np.random.default_rng((_DRAWN[drawn], seed, number))


def find_generator(device: str) -> torch.Generator:
    """The generator that a training on a device seeds anew at each step."""
    if not device.startswith("cuda"):
        return torch.default_generator
    torch.cuda.init()  # type: ignore[no-untyped-call]
    return torch.cuda.default_generators[torch.device(device).index or 0]


def train_on_budget(
    model: nn.Module,
    losses_of: Losses,
    draw: Callable[[int], T],
    budget: Budget,
    folder: Path,
    *,
    collate: Callable[[list[T]], Any],
    seed: int,
    device: str = "cpu",
    measure: Callable[[], Mapping[str, float]] = dict,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
    about: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Train the model's trainable parameters until the budget is spent; the same call goes on where one was stopped.

    ``measure`` gives figures that go into every line of the log, which is told to ``say``, too; ``about`` are further settings
    that shape the curve.  Returns ``samples`` seen, ``minutes`` and the last ``loss`` for the card.

    Raises what ``train`` does: InputError when the folder holds a run with other settings.
    """
    every = max(1, budget.steps // _LINES)
    watch = TrainCallbacks(
        log_every=every, checkpoint_every=every, minutes=budget.minutes, workers=budget.workers, measure=lambda _: measure(),
        on_log=lambda line: say(_in_words(line, budget)), on_progress=on_progress,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(_groups(model, budget), lr=budget.lr, betas=(0.9, 0.98))
    trained = train(
        model, optimizer, losses_of, draw, _course(budget, seed), folder,
        collate=collate, watch=watch, ranks=DistributedContext(device=device), about=_about(budget, about),
    )  # fmt: skip
    loss = {"loss": trained.figures["loss"]} if "loss" in trained.figures else {}
    return {"samples": trained.done * budget.batch, "minutes": round(trained.seconds / 60, 1), **loss}


def check_folder(folder: Path, budget: Budget, seed: int, about: Mapping[str, Any]) -> None:
    """Refuse a folder that ``train_on_budget`` would refuse, before there is anything to learn from; raises InputError."""
    restore_state(folder / CHECKPOINT, {**_course(budget, seed).to_settings(), **_about(budget, about)}, "cpu")


def _course(budget: Budget, seed: int) -> TrainConfig:
    steps = budget.steps * (_MORE if budget.paced else 1)
    seconds = 60 * budget.minutes if budget.paced and budget.minutes else None
    return TrainConfig(steps, budget.batch, Cosine(round(budget.warmup * steps)), seed, clip=budget.clip, seconds=seconds)


def _about(budget: Budget, about: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"lr": budget.lr, "weight_decay": budget.weight_decay, **(about or {})}


def summarize_effort(training: Mapping[str, float]) -> dict[str, float]:
    """The figures of a card that tell what a training took.

    >>> summarize_effort({"samples": 24, "minutes": 0.5, "loss": 1.5})
    {'training samples': 24, 'training minutes': 0.5, 'training loss': 1.5}
    """
    return {f"training {name}": training[name] for name in ("samples", "minutes", "loss") if name in training}


def _groups(model: nn.Module, budget: Budget) -> list[dict[str, object]]:
    """The trainable parameters, matrices with weight decay and vectors without."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": budget.weight_decay, "name": "matrices"},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0, "name": "vectors"},
    ]


def _in_words(line: Mapping[str, float], budget: Budget) -> str:
    shown = {name: value for name, value in line.items() if not name.startswith("lr ") and name not in ("step", "images/s")}
    return f"step {line['step']} of {budget.steps}: " + ", ".join(f"{name} {value:.4g}" for name, value in shown.items())
