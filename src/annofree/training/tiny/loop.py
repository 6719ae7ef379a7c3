"""One training loop for small models: a budget of samples and minutes, a cosine schedule, logs, checkpoints."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from annofree.training.engine.checkpoint import CHECKPOINT, LOG, add_line, restored, save_state

__all__ = ["Budget", "Generator", "fit"]

Generator = torch.Generator | np.random.Generator
"""What a loss draws its batches with."""

_MAY_CHANGE = ("samples", "minutes")  # a run may be drawn out


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
    generators: Sequence[Generator] = (),
    about: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Minimise ``loss_of(progress)`` over the model's trainable parameters until the budget is spent.

    ``loss_of`` draws a batch and returns its loss, given how much of the budget is spent (0 .. 1).  ``measure`` gives
    figures, logged every ``every_minutes`` to ``folder/log.jsonl`` beside a checkpoint from which a later call resumes:
    it draws what an undisturbed run would have drawn with PyTorch's own generators and with ``generators``.  Returns the
    last figures.

    Raises InputError when the folder holds a run with another batch, learning rate or decay, or other settings ``about`` the
    run; only samples and minutes may be others.
    """
    optimiser = torch.optim.AdamW(_parameter_groups(model, budget.weight_decay), lr=budget.lr, betas=(0.9, 0.98))
    settings = {k: v for k, v in asdict(budget).items() if k not in _MAY_CHANGE} | dict(about or {})
    clock = _resume(model, optimiser, budget, folder / CHECKPOINT, settings, generators)
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
        add_line(folder / LOG, figures)
        save_state(folder / CHECKPOINT, _state(model, optimiser, clock, generators), settings)
        if clock.progress >= 1:
            return figures
        due, losses = clock.seconds + 60 * every_minutes, []


def _line(clock: _Clock, figures: dict[str, float]) -> str:
    left = clock.seconds * (1 / max(clock.progress, 1e-6) - 1) / 60
    return f"{clock.progress:4.0%}, {left:.0f} min left: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items())


def _state(
    model: nn.Module, optimiser: torch.optim.Optimizer, clock: _Clock, generators: Sequence[Generator]
) -> dict[str, Any]:
    return {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "seen": clock.seen,
        "seconds": clock.seconds,
        "drawn": [torch.get_rng_state(), _drawn_on_devices(), *map(_drawn, generators)],
    }


def _drawn_on_devices() -> list[Tensor]:
    """How far the generators of GPUs are; none where no GPU was touched, which asking would do."""
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]


def _drawn(generator: Generator) -> Tensor | str:
    """How far a generator is, as a checkpoint can hold it."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return json.dumps(generator.bit_generator.state)  # its numbers have more bits than a tensor's


def _draw_on(generator: Generator, drawn: Tensor | str) -> None:
    if isinstance(generator, torch.Generator):
        assert isinstance(drawn, Tensor)  # noqa: S101
        generator.set_state(drawn)
    else:
        assert isinstance(drawn, str)  # noqa: S101
        generator.bit_generator.state = json.loads(drawn)


def _resume(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    budget: Budget,
    path: Path,
    settings: Mapping[str, Any],
    generators: Sequence[Generator],
) -> _Clock:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = restored(path, settings, "cpu")  # generators are read there; parameters are copied to where theirs are
    if state is None:
        return _Clock(budget)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    ours, of_devices, *theirs = state["drawn"]
    torch.set_rng_state(ours)
    if of_devices and len(of_devices) == torch.cuda.device_count():  # on another machine nothing is as it was
        torch.cuda.set_rng_state_all(of_devices)
    for generator, drawn in zip(generators, theirs, strict=True):
        _draw_on(generator, drawn)
    return _Clock(budget, state["seen"], state["seconds"])
