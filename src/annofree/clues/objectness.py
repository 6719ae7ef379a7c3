"""Objectness from the instances of another method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from annofree.errors import InputError
from annofree.protocols import Segmenter
from annofree.structures import Classes, Detections, Image, Vocabulary

__all__ = ["InstanceObjectness", "sum_instance_masks"]


def sum_instance_masks(found: Detections, min_score: float = 0.3) -> Tensor:
    """Sum the masks of all detections scored ``min_score`` or more, times their scores, and divide by the highest sum, (H, W).

    The rule by which CLIP-DIY reads CutLER; zeros where nothing was found.

    >>> import numpy as np
    >>> both = np.array([[[1, 1, 0]], [[0, 1, 0]]], bool)
    >>> sum_instance_masks(Detections.from_masks(both, [0, 0], [0.5, 0.5], ["thing"])).tolist()
    [[0.5, 1.0, 0.0]]
    """
    strong = found[found.scores >= min_score]
    total = torch.zeros(found.size)
    for i, score in enumerate(strong.scores.tolist()):  # one mask at a time: a hundred of a large image fill the memory
        total += score * torch.from_numpy(strong[i : i + 1].masks[0])
    return total / total.max() if total.max() > 0 else total


class InstanceObjectness:
    """Uses the instances of ``classes`` found by any method as an objectness map (class-agnostic methods have one class).

    Raises InputError for ``min_score`` outside 0 .. 1.
    """

    def __init__(self, segmenter: Segmenter, classes: Classes, min_score: float = 0.3) -> None:
        if not 0 <= min_score <= 1:
            raise InputError(f"expected min_score in 0 .. 1, got {min_score}")
        self.segmenter, self.classes, self.min_score = segmenter, Vocabulary.of(classes), min_score

    @property
    def provenance(self) -> dict[str, Any]:
        """The rule, the requested classes, and the method."""
        asked = {"classes": list(self.classes.names), "min_score": self.min_score}
        return {"objectness": "instances", **asked, "segmenter": self.segmenter.provenance}

    def predict_maps(self, images: Sequence[Image]) -> list[Tensor]:
        """How likely each pixel belongs to some thing, (H, W) in 0 .. 1 per image."""
        return [sum_instance_masks(found, self.min_score) for found in self.find_masks(images)]

    def find_masks(self, images: Sequence[Image]) -> list[Detections]:
        """The instances of each image that the map is made of: those scored ``min_score`` or more."""
        found = (self.segmenter.instances(e, self.classes) for e in (self.segmenter.encode(images) if images else []))
        return [each[each.scores >= self.min_score] for each in found]
