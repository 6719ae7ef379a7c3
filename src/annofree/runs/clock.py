"""Timing of a command: a stopwatch that is in exactly one stage at any moment, so stages add up.

    loading | reading, encoding, instances, label maps, panoptic maps, drawing, writing, and what is left over

Seconds are monotonic wall-clock time; they do not advance while a machine sleeps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

__all__ = ["PARTS", "StageTimer", "Timed", "Timings", "skip_timing"]

PARTS = ("load", "read", "encode", "instances", "semantic", "panoptic", "draw", "write")
"""What takes time in a run.

``load``: all before the first image: imports, finding images, building models, loading and hashing weights; ``read``: waiting
for images that were not read yet; ``encode``: what needs no name; ``instances``, ``semantic``, ``panoptic``: each task;
``draw``: overlays; ``write``: all other files, until they are on the disk.
"""

_REST = "other"

Timed = Callable[[str], AbstractContextManager[None]]
"""Counts what happens within for a part."""


def skip_timing(part: str) -> AbstractContextManager[None]:
    """No-op ``Timed`` for callers without a clock.

    >>> with skip_timing("read"):
    ...     pass
    """
    return nullcontext()


@dataclass(frozen=True)
class Timings:
    """How many images were finished and failed, and the ``seconds`` that each part took; ``total`` may be more than all parts.

    >>> timings = Timings(images=6, failed=1, total=5.0, seconds={"load": 2.0, "encode": 2.5})
    >>> timings.images_per_second, timings.other
    (2.0, 0.5)
    """

    images: int = 0
    failed: int = 0
    total: float = 0.0
    seconds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def summed(cls, images: int, failed: int, stretches: Iterable[Mapping[str, float]]) -> Timings:
        """Those of several stretches of work, each with its ``total`` and its parts in seconds."""
        total, seconds = 0.0, dict.fromkeys(PARTS, 0.0)
        for stretch in stretches:
            total += stretch.get("total", 0.0)
            seconds = {part: s + stretch.get(part, 0.0) for part, s in seconds.items()}
        return cls(images, failed, total, seconds)

    @property
    def load(self) -> float:
        """Seconds of loading, before the first image."""
        return self.seconds.get("load", 0.0)

    @property
    def at_images(self) -> float:
        """Seconds from the first image on: all but loading."""
        return self.total - self.load

    @property
    def other(self) -> float:
        """Seconds outside all stages."""
        return self.total - sum(self.seconds.values())

    @property
    def images_per_second(self) -> float:
        """Finished images per second without loading, 0 if there are none."""
        return self.images / self.at_images if self.images and self.at_images > 0 else 0.0

    def as_dict(self) -> dict[str, float]:
        """The fields of run.json, rounded to milliseconds: ``seconds_total`` is the sum of all other seconds.

        >>> Timings(2, 0, 3.0, {"load": 1.0}).as_dict()["images_per_second_without_loading"]
        1.0
        """
        parts = {f"seconds_{part}": round(self.seconds.get(part, 0.0), 3) for part in PARTS}
        parts[f"seconds_{_REST}"] = max(0.0, round(self.total - sum(parts.values()), 3))
        counts = {"images": self.images, "failed": self.failed, "seconds_total": round(sum(parts.values()), 3)}
        return counts | parts | {"images_per_second_without_loading": round(self.images_per_second, 3)}


class StageTimer:
    """A stopwatch.  Once started it is in the stage "loading", until switched to another.

    Not thread-safe.

    >>> clock = StageTimer.started()
    >>> with clock.count("encode"):
    ...     with clock.count("read"):  # counts for reading alone
    ...         pass
    >>> clock.part, clock.running
    ('load', True)
    >>> sum(clock.seconds.values()) == clock.total
    True
    """

    def __init__(self) -> None:
        self.part = _REST
        self._at: float | None = None
        self._empty()

    def _empty(self) -> None:
        self.seconds = dict.fromkeys((*PARTS, _REST), 0.0)
        self._lap = dict(self.seconds)

    @classmethod
    def started(cls, at: float | None = None) -> StageTimer:
        """Return one that runs, from now or from an earlier moment ``at`` of ``time.perf_counter``."""
        clock = cls()
        clock.start(at)
        return clock

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._at is not None

    @property
    def total(self) -> float:
        """Seconds counted so far."""
        return sum(self.seconds.values())

    @property
    def elapsed(self) -> float:
        """Seconds since the start; may be read from other threads."""
        at = self._at
        return self.total + (0.0 if at is None else time.perf_counter() - at)

    def start(self, at: float | None = None) -> None:
        """Restart with loading, from now or from an earlier moment ``at`` of ``time.perf_counter``."""
        self._empty()
        self.part, self._at = "load", time.perf_counter() if at is None else at

    def stop(self) -> None:
        """Stop and keep the counted seconds."""
        self.switch(self.part)
        self._at = None

    def switch(self, part: str) -> str:
        """Switch to another stage and return the previous one."""
        before, self.part = self.part, part
        if self._at is not None:
            now = time.perf_counter()
            self.seconds[before] += now - self._at
            self._at = now
        return before

    @contextmanager
    def count(self, part: str) -> Iterator[None]:
        """Count the time of a block for one stage only."""
        before = self.switch(part)
        try:
            yield
        finally:
            self.switch(before)

    def take_lap(self) -> dict[str, float]:
        """The seconds of each stage and their ``total`` since the last call."""
        self.switch(self.part)
        took = {part: s - self._lap[part] for part, s in self.seconds.items()}
        self._lap = dict(self.seconds)
        total = sum(took.values())
        del took[_REST]
        return {"total": total, **took}

    def summarize(self, images: int, failed: int = 0) -> Timings:
        """All timings since the start."""
        self.switch(self.part)
        return Timings(images, failed, self.total, {part: self.seconds[part] for part in PARTS})
