"""Jobs in a line, and what comes of them put in order again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["JobLine", "Order"]

Job = TypeVar("Job")
Kept = TypeVar("Kept")


class JobLine(Generic[Job]):
    """Jobs by number, handed out in order; one that is put back is the next.

    >>> line = JobLine("ab")
    >>> line.take_next(2), line.take_next(1), line.is_empty
    ((0, 'a'), None, False)
    >>> line.restore(0, "rest of a")
    >>> line.take_next(2), line.take_next(2), line.is_empty
    ((0, 'rest of a'), (1, 'b'), True)
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._coming = enumerate(jobs)
        self._next = deque[tuple[int, Job]]()
        self._draw()

    @property
    def is_empty(self) -> bool:
        """Whether no job waits."""
        return not self._next

    def take_next(self, end: int) -> tuple[int, Job] | None:
        """Take the first job, None where there is none before number ``end``."""
        if not self._next or self._next[0][0] >= end:
            return None
        taken = self._next.popleft()
        if not self._next:
            self._draw()
        return taken

    def restore(self, number: int, job: Job) -> None:
        """Put what is left of a job first."""
        self._next.appendleft((number, job))

    def _draw(self) -> None:
        self._next.extend(one for one in [next(self._coming, None)] if one is not None)


@dataclass
class Order(Generic[Kept]):
    """Pieces of jobs that come in any order, given on job after job.

    >>> order = Order()
    >>> order.add(1, "c"); order.end(1); list(order.take_due())
    []
    >>> order.add(0, "a"); list(order.take_due())
    ['a']
    >>> order.add(0, "b"); order.end(0); list(order.take_due()), order.due
    (['b', 'c'], 2)
    """

    # the job whose pieces are given on
    due: int = 0
    _held: dict[int, list[Kept]] = field(default_factory=dict)
    _over: set[int] = field(default_factory=set)

    def add(self, number: int, piece: Kept) -> None:
        """Hold a piece of a job."""
        self._held.setdefault(number, []).append(piece)

    def end(self, number: int) -> None:
        """Take in that a job has no more pieces."""
        self._over.add(number)

    def take_due(self) -> Iterator[Kept]:
        """Give on the pieces of the job that is due, and of those after it once it is over."""
        while True:
            yield from self._held.pop(self.due, ())
            if self.due not in self._over:
                return
            self._over.discard(self.due)
            self.due += 1
