"""What a row of a recipe costs: the parameters of its models, and processor seconds, what it shares with other rows among them.

Rows that look at an image by the same models share what these say.  Its cost is kept, and each row that it serves is charged
for it, as if it had asked first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any, TypeVar

from torch import nn

__all__ = ["PARAMETERS", "Ledger", "count_parameters"]

PARAMETERS = "all million parameters"
"""The figure of size: those of all models that a row is made of, each once."""

Answer = TypeVar("Answer")


@dataclass
class Ledger:
    """Processor seconds, and those that were ``spared`` so far because somebody had asked before."""

    spared: float = 0.0

    @property
    def now(self) -> float:
        """The processor's clock, as if nothing had been spared."""
        return time.process_time() + self.spared

    def measure(self, make: Callable[[], Answer]) -> tuple[Answer, float]:
        """What is made, and its cost."""
        started = self.now
        return make(), self.now - started

    def add(self, seconds: float) -> None:
        """Count what was made before."""
        self.spared += seconds


def count_parameters(method: Any) -> float:
    """Count the parameters of all networks that a method is made of, in millions, one that is found twice but once.

    >>> network = nn.Linear(1000, 1000)
    >>> count_parameters({"a": network, "b": [network]})
    1.001
    """
    counted = {id(p): p.numel() for network in _find_networks(method, set()) for p in network.parameters()}
    return round(sum(counted.values()) / 1e6, 3)


def _find_networks(held: Any, seen: set[int]) -> Iterator[nn.Module]:
    """The networks below an object of this package, a container, or a call that waits."""
    if id(held) in seen:
        return
    seen.add(id(held))
    if isinstance(held, nn.Module):
        yield held
        return
    for inner in _list_parts(held):
        yield from _find_networks(inner, seen)


def _list_parts(held: Any) -> list[Any]:
    if isinstance(held, Mapping):
        return list(held.values())
    if isinstance(held, list | tuple | set | frozenset):
        return list(held)
    if isinstance(held, partial):
        return [held.func, *held.args, *held.keywords.values()]
    if isinstance(held, MethodType):
        return [held.__self__]
    return list(vars(held).values()) if hasattr(held, "__dict__") and not isinstance(held, type) and _is_own(held) else []


def _is_own(held: Any) -> bool:
    """Whether an object may hold networks: of this package, of its tests, or of another package's method."""
    return not str(type(held).__module__).startswith(("torch", "builtins", "numpy"))
