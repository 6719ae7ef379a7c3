"""A model, its optimizer and how far they are: one step of learning, and all that it takes to go on after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from annofree.errors import InputError
from annofree.training.engine.distributed import DistributedContext
from annofree.training.engine.lr_schedules import Poly, Schedule

__all__ = ["Losses", "TrainConfig", "TrainState"]

Losses = Callable[[nn.Module, Any], Mapping[str, Tensor]]
"""Names the losses of a model on a batch, the same ones each time; their sum is minimized."""


@dataclass(frozen=True)
class TrainConfig:
    """What shapes the curve: a run goes on only under the course that it began with."""

    # steps of the optimizer in the whole run
    steps: int
    # images a step, over all processes
    batch: int
    # each group's learning rate over the steps, given what it starts from
    schedule: Schedule = field(default_factory=Poly)
    # of the batches and of what the model draws
    seed: int = 0
    # whether to compute under autocast in bfloat16; weights and the optimizer stay in full precision
    bf16: bool = False
    # bound on the norm of the gradient over all weights; None for none
    clip: float | None = None
    # how much of itself a moving average of the weights keeps at each step; None for no average
    ema: float | None = None
    # seconds over which the learning rate takes its course, where it ends with the time and not with the steps; None for steps
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise InputError(f"expected at least one step of one image, got {self.steps} of {self.batch}")

    def to_settings(self) -> dict[str, Any]:
        """As plain values by name, with the schedule's kind."""
        return {**asdict(self), "schedule": {"kind": type(self.schedule).__name__, **asdict(self)["schedule"]}}


class TrainState:
    """The model, its optimizer, and how far they are: ``done`` steps, in ``seconds``, with losses that no line has yet."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        losses_of: Losses,
        course: TrainConfig,
        ranks: DistributedContext,
    ) -> None:
        self.model, self.optimiser, self.losses_of, self.course, self.ranks = model, optimizer, losses_of, course, ranks
        self.together = ranks.wrap_ddp(model.train())
        self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(course.ema)) if course.ema else None  # type: ignore[no-untyped-call]
        self.rates = [float(group["lr"]) for group in optimizer.param_groups]
        self.done, self.names, self._new = 0, list[str](), list[Tensor]()
        self._earlier, self._started = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Spent on the run, earlier sessions included."""
        return self._earlier + time.monotonic() - self._started

    def train_step(self, batch: Any) -> None:
        """Learn from a batch."""
        at = self._find_place()
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = self.course.schedule(rate, at, self.course.steps)
        with self._seeded(), torch.autocast(self.ranks.device.split(":")[0], torch.bfloat16, enabled=self.course.bf16):
            losses = self.losses_of(self.together, batch)
        self.optimiser.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        if self.course.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.course.clip)
        self.optimiser.step()
        if self.averaged:
            self.averaged.update_parameters(self.model)
        self.names = list(losses)
        self._new.append(torch.stack([loss.detach().float() for loss in losses.values()]))
        self.done += 1

    def _find_place(self) -> int:
        """The step of the schedule: the one that is due, or the one that the time passed comes to."""
        if self.course.seconds is None:
            return self.done
        return min(self.course.steps - 1, int(self.course.steps * self.seconds / self.course.seconds))

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        """Let what the model draws (dropout, samples) follow from the step, and leave the caller's generators alone."""
        key = np.random.SeedSequence((self.course.seed, self.done, self.ranks.index))
        devices = [torch.device(self.ranks.device)] if self.ranks.device.startswith("cuda") else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(int(key.generate_state(1, np.uint64)[0] >> 1))
            yield

    def read_losses(self) -> Tensor:
        """The losses of the steps since the last line (steps, names), the mean over processes.

        Raises InputError unless they are numbers.
        """
        new = self.ranks.average(torch.stack(self._new)) if self._new else torch.zeros(0, len(self.names))
        if not bool(torch.isfinite(new).all()):
            raise InputError(
                f"the loss became NaN or infinite by step {self.done}; the last checkpoint is from before; a lower learning "
                "rate, a bound on the gradient's norm or bf16 = false may help"
            )
        self._new = list(new)
        return new

    def forget(self) -> None:
        """Drop the losses that a line was written of."""
        self._new = []

    def to_state(self) -> dict[str, Any]:
        """All that it takes to go on; every process has to ask."""
        state = {"done": self.done, "seconds": self.seconds, "names": self.names, "losses": self.read_losses()}
        state |= {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        return state | ({"averaged": self.averaged.state_dict()} if self.averaged else {})

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Go on from a state, if there is one."""
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.averaged:
            self.averaged.load_state_dict(state["averaged"])
        self.done, self._earlier, self.names, self._new = state["done"], state["seconds"], state["names"], list(state["losses"])
