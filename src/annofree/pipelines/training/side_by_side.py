"""Several networks to train: side by side on the cores of a CPU, a thread or more each; one after the other on a GPU."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

import torch

from annofree.errors import AnnofreeError, InputError
from annofree.pipelines.training.scenes import Show
from annofree.training.engine.checkpoint import LOG, read_log

__all__ = ["TrainJob", "train_side_by_side"]

_LOOK = 2.0  # seconds between looks at how far the trainings are


class _Recipe(Protocol):
    """What recipes of all networks have."""

    @property
    def out(self) -> Path:
        """The folder."""
        ...

    @property
    def steps(self) -> int:
        """Of the training."""
        ...


@dataclass(frozen=True)
class TrainJob:
    """A network to train: ``fit``, as ``fit_detector`` is, by its ``recipe``; ``after`` another job, by name, or None."""

    fit: Callable[..., Any]
    recipe: _Recipe
    after: str | None = None


def train_side_by_side(
    jobs: Mapping[str, TrainJob], show: Show, device: str = "cpu", say: Callable[[str], None] = print, cores: int | None = None
) -> None:
    """Train networks, as many at once as there are ``cores`` (of this machine), each as soon as what it comes after is trained.

    A job that comes ``after`` one that is not among them starts at once.  What a training says is said when it ends.  On a
    GPU, with one job or one core, they are trained in this process, in their order.  An error of one, or Ctrl-C, ends all,
    each with a checkpoint.

    >>> train_side_by_side({}, show=lambda what: 1 / 0)
    """
    cores = cores or os.cpu_count() or 1
    if device != "cpu" or min(cores, len(jobs)) < 2:
        for name, job in jobs.items():
            with show(f"steps of {name}") as shown:
                job.fit(job.recipe, device=device, on_progress=shown, say=say)
        return
    with show(f"steps of {', '.join(jobs)}") as shown:
        _train_apart(jobs, min(cores, len(jobs)), max(1, cores // len(jobs)), shown, say)


def _train_apart(
    jobs: Mapping[str, TrainJob], together: int, threads: int, shown: Callable[[int, int], None], say: Callable[[str], None]
) -> None:
    """Train networks in processes of their own, so many ``together``, each with so many threads."""
    waiting, running = dict(jobs), dict[str, _Training]()
    try:
        while waiting or running:
            for name in [name for name, job in waiting.items() if job.after not in {*waiting, *running}]:
                if len(running) < together:
                    running[name] = _Training(name, waiting.pop(name), threads)
            if not running:
                raise InputError(
                    f"expected trainings that begin from others, got {', '.join(waiting)}, which wait for one another"
                )
            wait([one.answer for one in running.values()], _LOOK)
            for name in [name for name, one in running.items() if one.answer.poll()]:
                for line in running.pop(name).end():
                    say(line)
            shown(sum(_count_done(job) for job in jobs.values()), sum(job.recipe.steps for job in jobs.values()))
    finally:
        for one in running.values():
            one.process.terminate()  # asks it to keep a checkpoint and to end
        for one in running.values():
            one.process.join()


class _Training:
    """A training in a process of its own; ``answer`` is where it tells how it ended."""

    def __init__(self, name: str, job: TrainJob, threads: int) -> None:
        context = get_context("spawn")
        self.name, (self.answer, told) = name, context.Pipe(duplex=False)
        self.process = context.Process(target=_train, args=(job, threads, told), name=name)
        self.process.start()
        told.close()

    def end(self) -> list[str]:
        """What the training said; raises what it raised, and AnnofreeError where its process was killed."""
        try:
            said, problem = self.answer.recv()
        except EOFError:
            self.process.join()
            how = f"was ended from outside, with exit status {self.process.exitcode}"
            raise AnnofreeError(f"the training of {self.name} {how}; the same call goes on with it") from None
        self.process.join()
        if problem is not None:
            raise problem
        return list(said)


def _count_done(job: TrainJob) -> int:
    """The steps of a training so far, as its log has them."""
    lines = read_log(job.recipe.out / LOG)
    return int(lines[-1]["step"]) if lines else 0


def _train(job: TrainJob, threads: int, told: Connection) -> None:
    """Train a network in this process, and tell what the training says and what it raises."""
    torch.set_num_threads(threads)
    os.setpgrp()  # Ctrl-C is for the process that began it, which asks all to end
    threading.Thread(target=_follow, daemon=True).start()
    said, problem = list[str](), None
    try:
        job.fit(job.recipe, device="cpu", on_progress=lambda done, total: None, say=said.append)
    except KeyboardInterrupt:
        return
    except Exception as why:  # it is raised where the training was begun
        problem = why
    told.send((said, problem))


def _follow() -> None:
    """End where the process that began this one has ended."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)
