"""The loop that trains: batches made from a number alone, one step after the other, and nothing lost when it is stopped.

    for step in range(steps):
        batch = the images step * batch ... of the run        each drawn from its number, ahead, by workers
        losses = losses_of(model, batch)
        one step of the optimizer, at the schedule's learning rates

All that happens follows from the settings and the step: a run that was killed goes on from its last checkpoint with the same
losses as if it had not been, bit for bit on the same machine with one thread of a CPU, and up to rounding elsewhere.  Several
processes that share each batch learn what one learns from the whole, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from annofree.io.atomic import make_folder, remove_temporaries
from annofree.io.files.lock import hold_lock
from annofree.training.engine.checkpoint import (
    CHECKPOINT,
    LOG,
    add_line,
    cut_log,
    open_board,
    read_log,
    restore_state,
    save_state,
)
from annofree.training.engine.data import catch_stop, iterate_batches
from annofree.training.engine.distributed import DistributedContext
from annofree.training.engine.state import Losses, TrainConfig, TrainState

__all__ = ["TrainCallbacks", "TrainConfig", "TrainResult", "train"]

_WRITTEN = ("checkpoint", "model", "card", "config", "detector", "training", "log", "curves")
"""Stems of the files that a training and its calls write to its folder."""

T = TypeVar("T")


@dataclass(frozen=True)
class TrainCallbacks:
    """What is kept and shown of a run, and who prepares its batches; nothing of it changes the curve.

    Only the first process of several logs, keeps and calls.
    """

    # steps of a line of the log, which is their mean
    log_every: int = 10
    # steps between checkpoints
    checkpoint_every: int = 500
    # steps between calls of on_sample; 0 for none
    sample_every: int = 0
    # processes that draw images ahead; 0 draws them in turn
    workers: int = 0
    # whether to write curves for TensorBoard, too; needs the package tensorboard
    tensorboard: bool = False
    # minutes, those of earlier calls included, after which a checkpoint is kept and the call ends; None for no limit
    minutes: float | None = None
    # (model): figures that are added to each line of the log; the model, or its moving average, is in evaluation mode
    measure: Callable[[nn.Module], Mapping[str, float]] = lambda model: {}
    # (line): each line of the log, once it is written
    on_log: Callable[[Mapping[str, float]], None] = lambda line: None
    # (step, model): every sample_every steps, with the model as measure has it
    on_sample: Callable[[int, nn.Module], None] = lambda step, model: None
    # (done, total): steps of the whole run
    on_progress: Callable[[int, int], None] = lambda done, total: None

    @classmethod
    def of(
        cls, recipe: Any, on_progress: Callable[[int, int], None], on_sample: Callable[[int, nn.Module], None]
    ) -> TrainCallbacks:
        """As the fields of a recipe, by the same names, have it."""
        names = ("log_every", "checkpoint_every", "sample_every", "workers", "tensorboard")
        return cls(**{name: getattr(recipe, name) for name in names}, on_sample=on_sample, on_progress=on_progress)


@dataclass(frozen=True)
class TrainResult:
    """What a call ends with: the last line of the log, the moving average of the weights, if there is one, and how far it came.

    ``done`` steps of the run, in ``seconds``, earlier calls included.
    """

    figures: dict[str, float]
    averaged: nn.Module | None = None
    done: int = 0
    seconds: float = field(default=0.0, compare=False)


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses_of: Losses,
    draw: Callable[[int], T],
    course: TrainConfig,
    folder: Path,
    *,
    collate: Callable[[list[T]], Any] = list,
    watch: TrainCallbacks | None = None,
    ranks: DistributedContext | None = None,
    about: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train a model, on the device of ``ranks``, in place; stopped at any step, the same call goes on where it was.

    ``draw(number)`` makes the number-th image of the run, from 0, and has to make the same one for the same number;
    ``collate`` puts a batch together; ``losses_of(model, batch)`` names losses whose sum is minimized.  The groups of the
    optimizer start from their own ``lr``, and their ``name``, if they have one, is in the log.  ``about`` are further
    settings that shape the curve.

    Ctrl-C, or a request to end, finishes the step, writes a checkpoint and raises KeyboardInterrupt; so do the minutes of
    ``watch``, but the call returns.  Raises InputError when the folder holds a run with other settings, another process trains
    there, a batch cannot be shared evenly, or a loss is NaN or infinite.
    """
    watch, ranks = watch or TrainCallbacks(), ranks or DistributedContext()
    make_folder(folder)
    taken = f"expected one training at a time in {folder}, and another is at work; wait for it"
    with hold_lock(folder / "lock", taken) if ranks.first else nullcontext():
        if ranks.first:
            remove_temporaries(folder, _WRITTEN)
        learner, settings = TrainState(model, optimizer, losses_of, course, ranks), {**course.to_settings(), **(about or {})}
        learner.load(restore_state(folder / CHECKPOINT, settings, ranks.device))
        diary = _TrainLogger(folder, learner, watch)
        if ranks.first:
            watch.on_progress(learner.done, course.steps)
        with catch_stop() as asked:
            start = course.steps if _is_over(learner, watch) else learner.done
            batches = iterate_batches(draw, collate, course, ranks, start, watch.workers)
            _take_steps(learner, batches, diary, lambda state: save_state(folder / CHECKPOINT, state, settings), asked)
        diary.close()
    return TrainResult(diary.read_last(), learner.averaged.module if learner.averaged else None, learner.done, learner.seconds)


def _take_steps(
    learner: TrainState,
    batches: Iterable[Any],
    diary: _TrainLogger,
    save: Callable[[dict[str, Any]], None],
    asked: Callable[[], bool],
) -> None:
    """Learn from one batch after the other, until they end, the minutes are over, or an end is ``asked`` for."""
    watch, ranks = diary.watch, learner.ranks
    for batch in batches:
        learner.train_step(batch)
        done, stop, over = learner.done, ranks.check_any(asked()), _is_over(learner, watch)
        last = done == learner.course.steps
        if last or done % watch.log_every == 0:
            diary.log()
        if last or stop or over or done % watch.checkpoint_every == 0:
            state = learner.to_state()
            if ranks.first:
                save(state)
        if ranks.first:
            diary.show()
        if stop and not last:
            diary.close()
            raise KeyboardInterrupt
        if over:
            break


def _is_over(learner: TrainState, watch: TrainCallbacks) -> bool:
    """Whether a run has had its minutes; every process has to ask."""
    limits = [60 * watch.minutes] if watch.minutes is not None else []
    limits += [learner.course.seconds] if learner.course.seconds is not None else []
    return bool(limits) and learner.ranks.check_any(learner.seconds >= min(limits))


class _TrainLogger:
    """The log, the board and the samples of a run."""

    def __init__(self, folder: Path, learner: TrainState, watch: TrainCallbacks) -> None:
        self.path, self.learner, self.watch = folder / LOG, learner, watch
        self.board = None
        if learner.ranks.first:
            cut_log(self.path, learner.done)
            self.board = open_board(folder, learner.done) if watch.tensorboard else None
        self._mark = (learner.done, learner.seconds)

    def log(self) -> None:
        """Write a line of the steps since the last one; every process has to ask."""
        means = self.learner.read_losses().double().mean(0).tolist()
        self.learner.forget()
        if not self.learner.ranks.first:
            return
        done, seconds = self.learner.done, self.learner.seconds
        speed = (done - self._mark[0]) * self.learner.course.batch / max(seconds - self._mark[1], 1e-9)
        self._mark = (done, seconds)
        line = {"step": done, "loss": sum(means), **dict(zip(self.learner.names, means, strict=True))}
        line |= {**self._rates(), "seconds": round(seconds, 2), "images/s": round(speed, 3)}
        with self._shown() as model:
            line |= self.watch.measure(model)
        add_line(self.path, line)
        self.watch.on_log(line)
        for name, value in line.items():
            if self.board and name != "step":
                self.board.add_scalar(name, value, done)

    def _rates(self) -> dict[str, float]:
        groups = self.learner.optimiser.param_groups
        return {f"lr {g['name']}" if "name" in g else f"lr {i}" if i else "lr": g["lr"] for i, g in enumerate(groups)}

    def show(self) -> None:
        """Call those who watch."""
        done = self.learner.done
        if self.watch.sample_every and done % self.watch.sample_every == 0:
            with self._shown() as model:
                self.watch.on_sample(done, model)
        self.watch.on_progress(done, self.learner.course.steps)

    @contextmanager
    def _shown(self) -> Iterator[nn.Module]:
        """Give the model, or its moving average, in evaluation mode; training it goes on after that as before."""
        shown = self.learner.averaged.module if self.learner.averaged else self.learner.model
        with torch.no_grad():
            yield shown.eval()
        shown.train()

    def close(self) -> None:
        """Let the board write what it has not written yet."""
        if self.board:
            self.board.close()

    def read_last(self) -> dict[str, float]:
        """Return the last line."""
        lines = read_log(self.path)
        return lines[-1] if lines else {}
