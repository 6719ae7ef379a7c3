"""Learning rates over a run: what a group of parameters learns at, given what it starts from and the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Cosine", "Poly", "Schedule", "Stairs", "Warmed"]


class Schedule(Protocol):
    """The learning rate at ``step`` of ``steps`` (from 0) of a group that starts from ``lr``; a dataclass, to be compared."""

    def __call__(self, lr: float, step: int, steps: int) -> float:
        """Return the learning rate of this step."""
        ...


@dataclass(frozen=True)
class Poly:
    """Falls as (1 - step / steps) to the ``power``, and not below ``floor``; ZUTIS's own numbers.

    >>> [round(Poly()(5e-5, step, 100) * 1e6, 2) for step in (0, 50, 99)]
    [50.0, 26.79, 1.0]
    """

    # exponent of the share of the steps that is left (ZUTIS's code)
    power: float = 0.9
    # least learning rate, of any group (ZUTIS's code)
    floor: float = 1e-6

    def __call__(self, lr: float, step: int, steps: int) -> float:
        """Return the learning rate of this step."""
        return max(lr * math.pow(1 - step / steps, self.power), self.floor)


@dataclass(frozen=True)
class Cosine:
    """Rises evenly over the first ``warmup`` steps, then falls along half a cosine to ``floor``.

    >>> [round(Cosine(warmup=2)(1.0, step, 10), 3) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.038]
    """

    # steps in which the learning rate rises
    warmup: int = 0
    # learning rate at the end
    floor: float = 0.0

    def __call__(self, lr: float, step: int, steps: int) -> float:
        """Return the learning rate of this step."""
        if step < self.warmup:
            return lr * (step + 1) / self.warmup
        gone = (step - self.warmup) / max(1, steps - self.warmup)
        return self.floor + (lr - self.floor) * 0.5 * (1 + math.cos(math.pi * gone))


@dataclass(frozen=True)
class Stairs:
    """Multiplied by ``factor`` at each of the steps ``at``, after an even rise over the first ``warmup`` steps.

    >>> [round(Stairs(at=(4, 8))(1.0, step, 10), 3) for step in (0, 4, 7, 8)]
    [1.0, 0.1, 0.1, 0.01]
    """

    # steps at which the learning rate falls
    at: tuple[int, ...]
    # what it is multiplied by at each of them
    factor: float = 0.1
    # steps in which it rises before
    warmup: int = 0

    def __call__(self, lr: float, step: int, steps: int) -> float:
        """Return the learning rate of this step."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return lr * rise * self.factor ** sum(step >= at for at in self.at)


@dataclass(frozen=True)
class Warmed:
    """Another schedule, reached in a straight line from ``factor`` of it over the first ``warmup`` steps, as detectron2 has it.

    >>> schedule = Warmed(Stairs(at=(4,), factor=0.2), warmup=2, factor=0.1)
    >>> [round(schedule(1.0, step, 10), 3) for step in (0, 1, 2, 3, 4)]
    [0.1, 0.55, 1.0, 1.0, 0.2]
    """

    # the schedule that is reached
    then: Schedule
    # steps until it is (detectron2: 1000)
    warmup: int = 1000
    # share of the first learning rate that the rise begins at (detectron2: 0.001)
    factor: float = 0.001

    def __call__(self, lr: float, step: int, steps: int) -> float:
        """Return the learning rate of this step."""
        gone = min(1.0, step / self.warmup) if self.warmup else 1.0
        return self.then(lr, step, steps) * (self.factor + (1 - self.factor) * gone)
