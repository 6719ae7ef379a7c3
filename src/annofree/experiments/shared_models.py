"""Models shared by many runs over the same image: each map is computed once, whoever asks first."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from typing import Any, TypeVar

from annofree.experiments.costs import Ledger
from annofree.structures import Image

__all__ = ["list_verbs", "memoize_per_image"]

Model = TypeVar("Model")


class _Memory:
    """Answers of a model for the image of the last call, known by identity, and what each cost, by a ``ledger``."""

    def __init__(self, ledger: Ledger) -> None:
        self._image: Image | None = None
        self._kept: dict[Any, tuple[Any, float]] = {}
        self._ledger = ledger

    def ask(self, see: Callable[..., Any], images: Sequence[Image], *args: Any, **options: Any) -> Any:
        if len(images) != 1:
            return see(images, *args, **options)
        if self._image is not images[0]:
            self._image, self._kept = images[0], {}
        question = (see.__name__, args, tuple(sorted(options.items())))
        if question in self._kept:
            self._ledger.add(self._kept[question][1])
        else:
            self._kept[question] = self._ledger.measure(partial(see, images, *args, **options))
        return self._kept[question][0]


def memoize_per_image(model: Model, ledger: Ledger | None = None) -> Model:
    """Return a copy of a model that remembers what it last saw, one image deep; the original is left as it is.

    A ``ledger`` is charged for what is remembered.
    """
    twin, memory = copy.copy(model), _Memory(ledger or Ledger())
    for verb in list_verbs(type(model)):
        setattr(twin, verb, partial(memory.ask, getattr(model, verb)))
    return twin


def list_verbs(kind: type) -> list[str]:
    """What models of a class do with images: their public methods whose first argument is ``images``.

    >>> from annofree.protocols import Masker
    >>> list_verbs(Masker)
    ['embed']
    """
    methods = inspect.getmembers(kind, inspect.isfunction)
    return [name for name, method in methods if not name.startswith("_") and [*signature(method).parameters][1:2] == ["images"]]
