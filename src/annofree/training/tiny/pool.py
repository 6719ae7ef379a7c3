"""Rendered images that are learned from many times, replaced little by little, each drawn from its number alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np

__all__ = ["Pool"]

T = TypeVar("T")


class Pool(Generic[T]):
    """A window on an endless list of things; at each step it holds ``size`` of them, the oldest ``fresh`` fewer than before.

    ``draw`` gives the things of some numbers; they are asked for in whole groups of ``group``, in which the window moves, too.
    What a step sees follows from its number: nothing has to be kept of a run but how far it is.

    >>> pool = Pool(lambda numbers: [10 * n for n in numbers], size=4, fresh=1)
    >>> [[pool.draw_thing(n) for n in pool.find_window(step)] for step in (0, 1)]
    [[0, 10, 20, 30], [10, 20, 30, 40]]
    """

    def __init__(self, draw: Callable[[range], Sequence[T]], size: int, fresh: int, group: int = 1) -> None:
        self._draw, self.size, self.fresh, self._group = draw, size, fresh, min(group, size)
        self._places = -(-size // self._group) * self._group
        self._held: dict[int, tuple[int, T]] = {}

    def fill(self, say: Callable[[str], None], what: str = "pictures", every: int = 4096) -> None:
        """Draw what the first step sees ahead of it."""
        for number in range(self.size):
            self.draw_thing(number)
            if (number + 1) % every == 0 or number + 1 == self.size:
                say(f"rendered {number + 1} of {self.size} {what}")

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
            for n, thing in zip(numbers, self._draw(numbers), strict=True):
                self._held[n % self._places] = (n, thing)
        return self._held[number % self._places][1]
