"""Rendered images that are learned from many times, replaced little by little, each drawn from its number alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from torch.utils.data import DataLoader

from annofree.training.engine.data import pass_on

__all__ = ["Pool"]

T = TypeVar("T")


class Pool(Generic[T]):
    """A window on an endless list of things; at each step it holds ``size`` of them, the oldest ``fresh`` fewer than before.

    ``draw`` gives the things of some numbers; they are asked for in whole groups of ``group``, in which the window moves, too.
    ``finish`` completes what was drawn, for what processes that only draw cannot do.
    What a step sees follows from its number: nothing has to be kept of a run but how far it is.

    >>> pool = Pool(lambda numbers: [10 * n for n in numbers], size=4, fresh=1)
    >>> [[pool.draw_thing(n) for n in pool.find_window(step)] for step in (0, 1)]
    [[0, 10, 20, 30], [10, 20, 30, 40]]
    """

    def __init__(
        self,
        draw: Callable[[range], Sequence[Any]],
        size: int,
        fresh: int,
        group: int = 1,
        finish: Callable[[Sequence[Any]], Sequence[T]] = lambda drawn: drawn,
    ) -> None:
        self._draw, self.size, self.fresh, self._group, self._finish = draw, size, fresh, min(group, size), finish
        self._places = -(-size // self._group) * self._group
        self._held: dict[int, tuple[int, T]] = {}

    def fill(self, say: Callable[[str], None], what: str = "images", every: int = 4096, workers: int = 0) -> None:
        """Draw what the first step sees ahead of it, in turn or by so many processes."""
        groups = [range(first, first + self._group) for first in range(0, self.size, self._group)]
        for numbers, drawn in zip(groups, self._draw_groups(groups, workers), strict=True):
            self._keep(numbers, drawn)
            done = min(numbers.stop, self.size)
            if done == self.size or done // every > numbers.start // every:
                say(f"rendered {done} of {self.size} {what}")

    def _draw_groups(self, groups: list[range], workers: int) -> Iterator[Sequence[Any]]:
        drawn: Any = _Groups(self._draw, groups)
        loader: DataLoader[Any] = DataLoader(drawn, batch_size=None, collate_fn=pass_on, num_workers=workers)
        yield from loader

    def find_window(self, step: int) -> range:
        """The numbers that a step sees."""
        first = step * self.fresh // self._group * self._group
        return range(first, first + self.size)

    def pick(self, step: int, rng: np.random.Generator) -> T:
        """Give one of the things that a step sees."""
        window = self.find_window(step)
        return self.draw_thing(window[int(rng.integers(len(window)))])

    def draw_thing(self, number: int) -> T:
        """Give the thing of a number, drawn where it is not held."""
        held = self._held.get(number % self._places)
        if held is None or held[0] != number:
            first = number // self._group * self._group
            numbers = range(first, first + self._group)
            self._keep(numbers, self._draw(numbers))
        return self._held[number % self._places][1]

    def _keep(self, numbers: range, drawn: Sequence[Any]) -> None:
        for n, thing in zip(numbers, self._finish(drawn), strict=True):
            self._held[n % self._places] = (n, thing)


class _Groups:
    """The things of whole groups of numbers, to be drawn by a process each."""

    def __init__(self, draw: Callable[[range], Sequence[Any]], groups: list[range]) -> None:
        self.draw, self.groups = draw, groups

    def __getitem__(self, index: int) -> Sequence[Any]:
        return self.draw(self.groups[index])

    def __len__(self) -> int:
        return len(self.groups)
