"""A fake detector of the paper world: correct results in milliseconds, without weights."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from skimage.measure import label
from torch import Tensor

from annofree.structures import IntArray
from annofree.testing.paper_world import NAMES, classify_pixels

__all__ = ["FakeDetector", "PaperThings"]


class PaperThings(NamedTuple):
    """N things: ``labels`` (N) into the names of the paper world, ``scores`` (N), and ``masks`` (N, H, W) bool."""

    labels: Tensor
    scores: Tensor
    masks: Tensor


class FakeDetector:
    """A network that finds each connected piece of one color, sure of the large ones a little more.

    >>> red = torch.tensor([200, 30, 30]).view(3, 1, 1).expand(3, 8, 20) / 255
    >>> (found,) = FakeDetector().detect([red])
    >>> found.labels.tolist(), tuple(found.masks.shape)
    ([0], (1, 8, 20))
    """

    names = NAMES

    def detect(self, pixels: list[Tensor]) -> list[PaperThings]:
        """What is found in each image (3, H, W) in 0 .. 1, strongest first."""
        return [self._found((image * 255).round().byte().permute(1, 2, 0).cpu().numpy()) for image in pixels]

    def _found(self, pixels: npt.NDArray[np.uint8]) -> PaperThings:
        classes, codes = classify_pixels(pixels), pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
        regions: IntArray = label(codes, background=-1, connectivity=1)
        masks = [regions == number for number in range(1, int(regions.max()) + 1)]
        things = sorted((m for m in masks if classes[m][0] < len(NAMES)), key=lambda m: -int(m.sum()))
        drawn = np.stack(things) if things else np.zeros((0, *classes.shape), bool)
        labels = torch.tensor([int(classes[mask][0]) for mask in things], dtype=torch.long)
        return PaperThings(labels, torch.tensor([0.9 - 0.1 / int(mask.sum()) for mask in things]), torch.from_numpy(drawn))
