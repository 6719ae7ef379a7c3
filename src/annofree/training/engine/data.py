"""Batches made from the number of a step alone, ahead of time, and a way to stop between two of them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from annofree.training.engine.distributed import DistributedContext
from annofree.training.engine.state import TrainConfig

__all__ = ["catch_stop", "iterate_batches", "pass_on"]

T = TypeVar("T")


class _Steps(Dataset[Any]):
    """The share of one process in the batch of each step."""

    def __init__(self, draw: Callable[[int], T], collate: Callable[[list[T]], Any], batch: int, share: Sequence[int]) -> None:
        self.draw, self.collate, self.batch, self.share = draw, collate, batch, share

    def __getitem__(self, step: int) -> Any:
        return self.collate([self.draw(step * self.batch + i) for i in self.share])


def iterate_batches(
    draw: Callable[[int], T],
    collate: Callable[[list[T]], Any],
    course: TrainConfig,
    ranks: DistributedContext,
    start: int,
    workers: int,
) -> Iterable[Any]:
    """Give the share of one process in each batch from step ``start`` on, in order, made ahead by ``workers`` processes.

    ``draw(number)`` makes the number-th image of the run, ``collate`` a batch of some.
    """
    return DataLoader(
        _Steps(draw, collate, course.batch, ranks.local_slice(course.batch)),
        batch_size=None,
        sampler=range(start, course.steps),
        collate_fn=pass_on,
        num_workers=workers,
        pin_memory=ranks.device.startswith("cuda"),
        worker_init_fn=_leave_stopping_to_the_trainer,
        generator=torch.Generator(),  # its own: batches draw nothing from the caller's
    )


def pass_on(batch: Any) -> Any:
    """Leave what a process made as it is, where a loader would turn arrays into tensors."""
    return batch


def _leave_stopping_to_the_trainer(worker: int) -> None:
    """Ctrl-C reaches workers, too, and would end them in the middle of the last step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def catch_stop() -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether Ctrl-C was pressed or an end requested; the second time it is one, at once."""
    asked = threading.Event()

    def stop(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():  # where Python lets nobody catch signals
        yield asked.is_set
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
