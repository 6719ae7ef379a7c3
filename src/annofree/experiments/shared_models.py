"""Models shared by many runs over the same picture: each map is computed once, whoever asks first."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar, get_type_hints

from annofree.protocols import Masker, Objectness, SelfSupervised, VisionLanguage
from annofree.structures import Image

__all__ = ["shared"]

Model = TypeVar("Model")


def _verbs() -> Iterator[str]:
    """What models do with pictures alone: the methods of their protocols that take ``images``."""
    for protocol in (VisionLanguage, SelfSupervised, Objectness, Masker):
        for name, member in vars(protocol).items():
            if not name.startswith("_") and callable(member) and get_type_hints(member).get("images") == Sequence[Image]:
                yield name
    yield "tokens"  # of a DINO, which its protocol leaves to it


class _Memory:
    """Answers of a model for the picture of the last call, known by identity."""

    def __init__(self) -> None:
        self._image: Image | None = None
        self._kept: dict[Any, Any] = {}

    def ask(self, see: Callable[..., Any], images: Sequence[Image], *args: Any, **options: Any) -> Any:
        if len(images) != 1:
            return see(images, *args, **options)
        if self._image is not images[0]:
            self._image, self._kept = images[0], {}
        question = (see.__name__, args, tuple(sorted(options.items())))
        if question not in self._kept:
            self._kept[question] = see(images, *args, **options)
        return self._kept[question]


def shared(model: Model) -> Model:
    """Return a copy of a model that remembers what it last saw, one picture deep; the original is left as it is."""
    twin, memory = copy.copy(model), _Memory()
    for verb in _VERBS:
        if hasattr(model, verb):
            setattr(twin, verb, partial(memory.ask, getattr(model, verb)))
    return twin


_VERBS = tuple(_verbs())
