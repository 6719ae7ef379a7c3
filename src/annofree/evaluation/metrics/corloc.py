"""Correct localization (CorLoc): the share of images whose one predicted box meets a thing.

Of LOST, TokenCut and deep spectral methods, on the images of VOC and COCO that show things.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torchvision.ops import box_iou

from annofree.errors import InputError
from annofree.evaluation.metrics.predictions import Row, group_by_image, match_predictions
from annofree.formats.coco import CocoFile

__all__ = ["CorLoc", "compute_corloc"]


@dataclass(frozen=True)
class CorLoc:
    """How many images there were with things, and how many of them were met."""

    # images with at least one thing that is no crowd
    images: int
    # of them, those whose surest box has an IoU of at least the threshold with any thing
    met: int
    # images of these without any prediction
    empty: int

    @property
    def value(self) -> float | None:
        """The share of images that were met, None without images."""
        return self.met / self.images if self.images else None


def compute_corloc(truth: CocoFile, predictions: CocoFile, threshold: float = 0.5) -> CorLoc:
    """Compute CorLoc of the surest prediction of each image, the first of equals; names play no part, crowds are left out.

    Images are matched as ``match_predictions`` does it, whose errors this raises; a prediction without a score has 1.  Raises
    InputError for a threshold outside of 0 .. 1.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"expected a threshold in 0 .. 1, got {threshold}")
    scored = [{"score": 1.0, **row} for row in predictions.annotations]
    said = group_by_image(match_predictions(truth, replace(predictions, annotations=scored), "class-agnostic"))
    things = group_by_image([row for row in truth.annotations if not row.get("iscrowd")])
    met = sum(_meets(said[image], own, threshold) for image, own in things.items() if said[image])
    return CorLoc(len(things), met, sum(not said[image] for image in things))


def _meets(said: Sequence[Row], things: Sequence[Row], threshold: float) -> bool:
    surest = max(said, key=lambda row: row["score"])
    corners = torch.tensor([row["bbox"] for row in (surest, *things)], dtype=torch.float64)
    corners[:, 2:] += corners[:, :2]
    return bool((box_iou(corners[:1], corners[1:]) >= threshold).any())
