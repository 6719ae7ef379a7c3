"""Progress: a bar with an ETA on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress"]

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(what: str, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Give a function of (done, total) that shows how far the work is, on the error stream."""
    if quiet:
        yield lambda done, total: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(what)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:
        yield _lines(what)


def _lines(what: str) -> Callable[[int, int], None]:
    started = time.monotonic()
    last, first = started, None

    def show(done: int, total: int) -> None:
        nonlocal last, first
        now = time.monotonic()
        first = first or (done, now)  # what an earlier run did is no part of this one's rate
        if done < total and now - last < _SECONDS_BETWEEN_LINES:
            return
        last = now
        before, since = first if done > first[0] else (0, started)
        rate = (done - before) / (now - since) if now > since else 0.0
        left = (total - done) / rate if rate else 0.0
        print(f"{what}: {done} of {total}, {rate:.1f} a second, {left:.0f} s left", file=sys.stderr, flush=True)

    return show
