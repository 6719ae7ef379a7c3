"""How long work still takes: by the pace of the batches of late, the first of which tells nothing.

The first batch waits for caches, compilers and devices, and what an earlier call did took this one no time.  Images differ in
cost, so the pace is a mean; a single pause is no rule, so the slowest batch counts as the second slowest does; and where the
last few batches are all faster or all slower than most before them, those before are forgotten.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

__all__ = ["Eta", "format_duration", "format_pace", "format_seconds_each"]

_KEPT = 30  # batches that the pace is of
_LATE = 4  # batches that have to agree that the pace is another now
_CHANGE = 0.15  # by which it has to be another, as a part of what it was
_LEAST = 0.5  # seconds; quicker batches are counted together

_Batch = tuple[int, float]  # how many, and the seconds that they took together


class Eta:
    """Estimates the seconds that are left, given how much is done; a number that falls begins other work.

    ``batch`` is how many are done together, ``now`` the clock.

    >>> seconds = iter([0.0, 9.0, 11.0, 13.0])  # the first batch takes nine seconds, others two
    >>> eta = Eta(batch=4, now=lambda: next(seconds))
    >>> for done in (0, 4, 8, 12):
    ...     eta.update(done, 20)
    >>> eta.pace, eta.estimate_left(at=13.0), eta.estimate_left(at=14.0)
    (0.5, 4.0, 3.0)
    """

    def __init__(self, batch: int = 1, now: Callable[[], float] = time.monotonic) -> None:
        self._size, self._now = max(1, batch), now
        self.restart()

    def restart(self) -> None:
        """Forget all, for other work."""
        self.done, self.total = 0, 0
        self._began: tuple[int, float] | None = None
        self._mark, self._last, self._warm = (0, 0.0), 0.0, False
        self._batches: list[_Batch] = []  # replaced and never changed, for a bar is drawn in another thread

    @property
    def pace(self) -> float | None:
        """Seconds for each one, of late; None before a second batch is done."""
        if not (batches := self._batches):
            return None
        paces = sorted(seconds / count for count, seconds in batches)
        most = paces[-2] if len(paces) > 2 else paces[-1]
        return sum(min(s, most * n) for n, s in batches) / sum(n for n, _ in batches)

    @property
    def seconds(self) -> float:
        """Seconds since the work began, until it was last looked at; 0 before."""
        return 0.0 if self._began is None else self._last - self._began[1]

    @property
    def counted(self) -> int:
        """How many were done since the work began."""
        return 0 if self._began is None else self.done - self._began[0]

    @property
    def mean(self) -> float | None:
        """Seconds for each one since the work began, the first batch too; None before any is done."""
        return self.seconds / self.counted if self.counted else None

    def update(self, done: int, total: int) -> None:
        """Take in how many are done."""
        now = self._now()
        if self._began is None or done < self.done:
            self._began, self._mark, self._batches, self._warm = (done, now), (done, now), [], False
        self.done, self.total, self._last = done, total, now
        place, before = ((n - self._began[0]) // self._size for n in (done, self._mark[0]))
        if place > before and not (self._warm and now - self._mark[1] < _LEAST):
            if self._warm:
                self._batches = _of_late([*self._batches, (done - self._mark[0], now - self._mark[1])])
            self._mark, self._warm = (done, now), True

    def estimate_left(self, at: float | None = None) -> float | None:
        """The seconds that are left at a moment, else now; None while that cannot be told.

        It counts down while a batch is at work, but not below what the batches after that take.
        """
        pace = self.pace
        if self.done >= self.total and self._began is not None:
            return 0.0
        if pace is None:
            return None
        since = (self._now() if at is None else at) - self._mark[1]
        rest = self.total - self.done
        counted = pace * (self.total - self._mark[0]) - since
        return min(max(counted, pace * max(0, rest - self._size)), pace * rest)


def _of_late(batches: Sequence[_Batch]) -> list[_Batch]:
    """The batches that the pace is of."""
    kept = list(batches[-_KEPT:])
    late, before = ([s / n for n, s in part] for part in (kept[-_LATE:], kept[:-_LATE]))
    if len(before) < _LATE:
        return kept
    ordered = sorted(before)
    low, high = ordered[len(before) // 4], ordered[-1 - len(before) // 4]
    ratio = (sum(late) / len(late)) / (sum(before) / len(before) or 1.0)
    faster, slower = max(late) < low and ratio < 1 - _CHANGE, min(late) > high and ratio > 1 + _CHANGE
    return kept[-_LATE:] if faster or slower else kept


def format_duration(seconds: float, digits: int = 0) -> str:
    """A time in words; ``digits`` after the point where it is less than a minute.

    >>> format_duration(9.43, 1), format_duration(42.4), format_duration(250.2), format_duration(7503), format_duration(100_000)
    ('9.4 s', '42 s', '4 min 10 s', '2 h 5 min', '1 d 3 h')
    """
    if round(seconds, digits) < 60:
        return f"{seconds:.{digits}f} s"
    whole = round(seconds)
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    first = next(k for k, (_, size) in enumerate(units) if whole >= size)
    (name, size), (less, part) = units[first], units[first + 1]
    rest = whole % size // part
    return f"{whole // size} {name}" + (f" {rest} {less}" if rest else "")


def format_seconds_each(seconds: float) -> str:
    """Seconds for each one, to two digits where they are few.

    >>> tuple(format_seconds_each(seconds) for seconds in (0.0042, 0.614, 2, 16.4, 250))
    ('0.0042 s', '0.61 s', '2.0 s', '16 s', '4 min 10 s')
    """
    return f"{seconds:#.2g} s" if seconds < 9.95 else format_duration(seconds)


def format_pace(seconds: float) -> str:
    """How fast it goes, given the seconds for each one.

    >>> format_pace(0.05), format_pace(0.61)
    ('20 a second', '0.61 s each')
    """
    return f"{1 / max(seconds, 1e-9):,.0f} a second" if seconds <= 0.2 else f"{format_seconds_each(seconds)} each"
