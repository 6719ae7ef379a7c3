"""Timing of benchmarks: seconds and their spread over repeats."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

__all__ = ["Spread", "format_spreads", "measure_seconds", "print_json"]


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


def measure_seconds(work: Callable[[], object], device: str = "cpu") -> float:
    """Time a function, including device synchronization."""
    start = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def format_spreads(
    title: str, rows: Mapping[str, Spread], width: int, digits: int = 1, more: Mapping[str, str] | None = None
) -> str:
    """Lay out spreads as plain text under a title of ``width`` letters; ``more`` gives rows a last column, the target.

    >>> print(format_spreads("images a second", {"ours": Spread(2.5, 1.0, 4.0)}, 20))
    images a second         median       min       max
    ours                       2.5       1.0       4.0
    """
    head = f"{title:{width}}{'median':>10}{'min':>10}{'max':>10}" + (f"{'target':>10}" if more is not None else "")
    lines = [f"{name:{width}}" + "".join(f"{value:10.{digits}f}" for value in spread) for name, spread in rows.items()]
    if more is not None:
        lines = [f"{line}{more.get(name, ''):>10}" for name, line in zip(rows, lines, strict=True)]
    return "\n".join([head, *lines])


def print_json(found: object, path: Path | None = None) -> None:
    """Print findings as JSON, and write them to a file where one is given."""
    said = json.dumps(found, indent=2)
    if path:
        path.write_text(said + "\n", encoding="utf-8")
    print(said)
