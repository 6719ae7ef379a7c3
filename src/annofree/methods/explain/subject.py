"""What is explained: an image, what a method remembers of it, and the names asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from annofree.ops.palette import Color, assign_colors
from annofree.render.overlay import draw_overlay
from annofree.render.steps_page import Drawing, Step
from annofree.structures import Detections, FloatArray, Image, Vocabulary

__all__ = ["MOST_DRAWN", "Explainer", "Subject", "format_counts", "list_some", "to_numpy"]

MOST_DRAWN = 6
"""Names that have a picture of their own in a step."""

_NAMELESS = 12  # things without names in a picture: more hide one another


class Explainer(Protocol):
    """Draws the steps of a method, in order, up to its own ranking or label map."""

    def __call__(self, method: Any, subject: Subject) -> Iterable[Step]:
        """The steps of ``method`` on a subject."""
        ...


@dataclass(frozen=True, eq=False)
class Subject:
    """An ``image``, the method's own ``encoding`` of it, and what was asked.

    ``asked`` are the names that the method is asked for, some of ``vocabulary``, which gives all pictures their colors;
    ``others`` those that compete, and ``near`` those of them that may be there; ``task`` is instance or semantic.
    """

    image: Image
    encoding: Any
    vocabulary: Vocabulary
    asked: Vocabulary
    task: str
    others: tuple[str, ...] = ()
    near: tuple[str, ...] = ()

    def find_color(self, name: str) -> Color:
        """The color of a name on all pictures."""
        return assign_colors(dict.fromkeys([*self.vocabulary.names, *self.asked.names, name]))[name]

    def choose_rows(self, names: Sequence[str], rows: Sequence[int], best: Tensor) -> list[int]:
        """Order some of the rows that are scored: those asked for, then others, by the cells (h, w) they are ``best`` in."""
        wins = torch.bincount(best.flatten(), minlength=len(names)).tolist()
        return sorted(rows, key=lambda k: (names[k] not in self.asked.names, -wins[k]))

    def draw(self, found: Detections, caption: str) -> Drawing:
        """Draw detections of any names over the image, those asked for in their colors."""
        names = tuple(dict.fromkeys([*self.vocabulary.names, *found.labels.tolist()]))
        return Drawing(caption, draw_overlay(self.image, found.with_names(names)))

    def draw_nameless(self, found: Detections, caption: str) -> Drawing:
        """Draw the strongest detections without names, told apart by color: each is called by its number."""
        names = tuple(str(k) for k in range(1, len(found) + 1))
        numbered = replace(found, names=names or ("none",), class_ids=np.arange(len(found)))
        more = f", the {_NAMELESS} surest drawn" if len(found) > _NAMELESS else ""
        return Drawing(caption + more, draw_overlay(self.image, numbered, limit=_NAMELESS))


def format_counts(found: Detections, most: int = 6) -> str:
    """Say how many of each name there are, the most frequent first.

    >>> format_counts(Detections.from_masks(np.ones((2, 1, 1), bool), [0, 0], [0.5, 0.4], ["cat"]))
    '2 cat'
    """
    names, counts = np.unique(found.labels, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return list_some([f"{counts[k]} {names[k]}" for k in order], most) or "none"


def list_some(texts: Sequence[str], most: int = 6) -> str:
    """List the first texts, and the number of others.

    >>> list_some(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def to_numpy(values: Tensor) -> FloatArray:
    """A tensor of numbers as a float32 array on the CPU."""
    numbers: FloatArray = values.detach().float().cpu().numpy()
    return numbers
