"""One training loop for small models: a budget of samples and minutes, a cosine schedule, logs, checkpoints."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from annofree.io.atomic import write_atomic

__all__ = ["Budget", "fit"]


@dataclass(frozen=True)
class Budget:
    """When a run is over, and how it learns until then.

    The run ends after ``samples`` or after ``minutes``, whichever comes first; the learning rate rises over the first
    ``warmup`` of it and falls to zero at its end along a cosine.
    """

    samples: int
    minutes: float
    batch: int
    lr: float
    weight_decay: float = 0.05
    warmup: float = 0.03
    clip: float = 1.0


@dataclass
class _Clock:
    """Counts samples and the seconds of earlier sessions of a resumed run."""

    budget: Budget
    seen: int = 0
    before: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.started

    @property
    def progress(self) -> float:
        return min(1.0, max(self.seen / self.budget.samples, self.seconds / 60 / self.budget.minutes))

    @property
    def lr(self) -> float:
        p, w = self.progress, self.budget.warmup
        return self.budget.lr * (min(1.0, max(p, 1e-3) / w) if p < w else 0.5 * (1 + math.cos(math.pi * (p - w) / (1 - w))))


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def fit(
    model: nn.Module,
    loss_of: Callable[[float], Tensor],
    budget: Budget,
    folder: Path,
    *,
    measure: Callable[[], dict[str, float]],
    say: Callable[[str], None],
    every_minutes: float = 5.0,
) -> dict[str, float]:
    """Minimise ``loss_of(progress)`` over the model's trainable parameters until the budget is spent.

    ``loss_of`` draws a batch and returns its loss, given how much of the budget is spent (0 .. 1).  ``measure`` gives
    figures, logged every ``every_minutes`` to ``folder/log.jsonl`` beside a checkpoint from which a later call resumes.
    Returns the last figures.
    """
    optimiser = torch.optim.AdamW(_parameter_groups(model, budget.weight_decay), lr=budget.lr, betas=(0.9, 0.98))
    clock = _resume(model, optimiser, budget, folder / "checkpoint.pt")
    if clock.progress >= 1:  # a finished run, asked again: nothing is left to learn
        return {"samples": clock.seen, "minutes": round(clock.seconds / 60, 1)} | measure()
    due, losses = clock.seconds + 60 * every_minutes, []
    while True:
        for group in optimiser.param_groups:
            group["lr"] = clock.lr
        loss = loss_of(clock.progress)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), budget.clip)
        optimiser.step()
        losses.append(float(loss.detach()))
        clock.seen += budget.batch
        if clock.seconds < due and clock.progress < 1:
            continue
        figures = {"samples": clock.seen, "minutes": round(clock.seconds / 60, 1), "loss": sum(losses) / len(losses)}
        figures |= measure()
        say(_line(clock, figures))
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(figures) + "\n")
        _checkpoint(model, optimiser, clock, folder / "checkpoint.pt")
        if clock.progress >= 1:
            return figures
        due, losses = clock.seconds + 60 * every_minutes, []


def _line(clock: _Clock, figures: dict[str, float]) -> str:
    left = clock.seconds * (1 / max(clock.progress, 1e-6) - 1) / 60
    return f"{clock.progress:4.0%}, {left:.0f} min left: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items())


def _checkpoint(model: nn.Module, optimiser: torch.optim.Optimizer, clock: _Clock, path: Path) -> None:
    state = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "seen": clock.seen,
        "seconds": clock.seconds,
    }
    write_atomic(path, lambda temporary: torch.save(state, temporary))


def _resume(model: nn.Module, optimiser: torch.optim.Optimizer, budget: Budget, path: Path) -> _Clock:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        return _Clock(budget)
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return _Clock(budget, state["seen"], state["seconds"])
