"""Correct localization (CorLoc): the share of images whose one predicted box meets a thing.

Of LOST, TokenCut and deep spectral methods, on the images of VOC and COCO that show things.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torchvision.ops import box_iou

from annofree.errors import InputError
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

    Images are matched by file name.  Raises InputError for a threshold outside of 0 .. 1.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"expected a threshold in 0 .. 1, got {threshold}")
    names = {image["id"]: image["file_name"] for image in truth.images}
    things: dict[str, list[list[float]]] = {}
    for row in truth.annotations:
        if not row.get("iscrowd"):
            things.setdefault(names[row["image_id"]], []).append(row["bbox"])
    theirs = {image["id"]: image["file_name"] for image in predictions.images}
    best: dict[str, tuple[float, list[float]]] = {}
    for row in predictions.annotations:
        name, score = theirs[row["image_id"]], float(row.get("score", 1.0))
        if name not in best or score > best[name][0]:
            best[name] = (score, row["bbox"])
    met = sum(_meets(best[name][1], boxes, threshold) for name, boxes in things.items() if name in best)
    return CorLoc(len(things), met, len(things.keys() - best.keys()))


def _meets(box: list[float], others: list[list[float]], threshold: float) -> bool:
    corners = torch.tensor([box, *others], dtype=torch.float64)
    corners[:, 2:] += corners[:, :2]
    return bool((box_iou(corners[:1], corners[1:]) >= threshold).any())
