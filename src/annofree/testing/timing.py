"""The clock of benchmarks: seconds of some work, and how far repeats of it spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

__all__ = ["Spread", "seconds"]


class Spread(NamedTuple):
    """Median, least and greatest of several repeats.

    >>> Spread.of([3.0, 1.0, 4.0, 2.0])
    Spread(median=2.5, least=1.0, most=4.0)
    """

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Sum up the repeats, at least one."""
        return cls(statistics.median(values), min(values), max(values))


def seconds(work: Callable[[], object], device: str = "cpu") -> float:
    """Time some work, up to the moment at which the device has done it."""
    start = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start
