"""What a run of a recipe asks of its method, by its task, and how long that takes beside another run.

H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from annofree.evaluation.accumulators import Figures
from annofree.evaluation.metrics.boundaries import mark_label_edges, mark_mask_edges
from annofree.ops.grids import resize_nearest
from annofree.structures import BoolArray, Image, Vocabulary

__all__ = ["ASKED", "IMAGES", "SECONDS", "TIMES", "add_seconds"]

SECONDS, IMAGES, TIMES = "all seconds an image", "all images a second", "all times as fast"
"""The figures of time; none is in percent."""


class Timed(Protocol):
    """A run of a recipe that may be timed beside another."""

    @property
    def name(self) -> str:
        """Unique in the recipe."""
        ...

    @property
    def beside(self) -> str:
        """The name of another run; empty for none."""
        ...


def find_edges(method: Any, encoding: Any, vocabulary: Vocabulary, image: Image) -> BoolArray:
    """The edges (H, W) of the fragments that a method cuts an image into, of the masks that it finds where it cuts none."""
    pieces = getattr(encoding, "fragments", None)
    if pieces is not None:
        return mark_label_edges(resize_nearest(pieces.labels, image.size).cpu().numpy())
    return mark_mask_edges(method.instances(encoding, vocabulary).rles, image.size)


ASKED: Mapping[str, Callable[[Any, Any, Vocabulary, Image], Any]] = MappingProxyType(
    {
        "instance": lambda method, encoding, vocabulary, image: method.instances(encoding, vocabulary),
        "semantic": lambda method, encoding, vocabulary, image: method.semantic(encoding, vocabulary),
        "boundary": find_edges,
    }
)
"""What each task asks of a method about an encoding."""


def add_seconds(figures: Mapping[str, Figures], seconds: Mapping[str, float], images: int, runs: Sequence[Timed]) -> None:
    """Put the seconds an image of runs among their figures, and how many times as fast as another a run is."""
    for run in runs:
        if run.name in seconds:
            figures[run.name][SECONDS] = round(seconds[run.name] / max(1, images), 3)
        if run.beside in seconds and seconds.get(run.name):
            figures[run.name][TIMES] = round(seconds[run.beside] / seconds[run.name], 2)
