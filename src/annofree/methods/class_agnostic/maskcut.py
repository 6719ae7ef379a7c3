"""MaskCut, which CutLER's labels are made by (CVPR 2023): a few normalized cuts of DINO's keys, each drawn to image edges.

image -> square -> keys of DINO -> cuts of cells -> less what earlier ones hold -> dense CRF -> masks of the image

H W pixels, h w cells.  MaskCut has no score: all are 1, in the order of their rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from scipy.ndimage import binary_fill_holes

from annofree.errors import InputError
from annofree.fragments.maskcut import Cut, MaskCutSettings, cut_masks
from annofree.methods.class_agnostic.base import ClassAgnosticByDino
from annofree.methods.variants import choose_settings
from annofree.ops.crf import CrfSettings, DenseCrf
from annofree.ops.grids import resize_nearest
from annofree.protocols import SelfSupervised
from annofree.structures import Detections, Image

__all__ = ["VARIANTS", "MaskCut", "MaskCutMethodSettings"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MaskCutMethodSettings:
    """What may be chosen."""

    # px, the square that an image is resized to, its aspect lost, before DINO sees it; 480 in the released code
    side: int = 480
    # rounds, and what joins cells
    cuts: MaskCutSettings = field(default_factory=MaskCutSettings)
    # the field that draws masks to image edges; None leaves the cells as they are
    crf: CrfSettings | None = field(default_factory=CrfSettings)
    # IoU of a mask before and after that field below which it is dropped
    agree: float = 0.5

    def __post_init__(self) -> None:
        if self.side < 1 or not 0 <= self.agree <= 1:
            raise InputError(f"expected a side of at least 1 px and agree in 0 .. 1, got {self.side} and {self.agree}")


VARIANTS: Mapping[str, MaskCutMethodSettings] = MappingProxyType(
    {"default": MaskCutMethodSettings(), "cells": MaskCutMethodSettings(crf=None)}
)
"""``cells`` leaves out the field: masks end at cells."""


class MaskCut(ClassAgnosticByDino):
    """The things of an image by normalized cuts of a ``dino``'s keys; raises InputError for an unknown variant."""

    name = "maskcut"

    def __init__(self, dino: SelfSupervised, settings: MaskCutMethodSettings | str = "default") -> None:
        self.settings = choose_settings(self.name, settings, VARIANTS)
        self.dino = dino
        self.undecided = 0

    def discover(self, images: Sequence[Image]) -> list[Detections]:
        """The masks of each image, in the order of their rounds; ``undecided`` counts cells that rounding decided."""
        return [self._discover(image) for image in images]

    def _discover(self, image: Image) -> Detections:
        square, cuts = self.cut(image)
        self.undecided += sum(cut.undecided for cut in cuts)
        masks = [whole for mask in self._draw(square, cuts) if (whole := _resize_mask(mask, image.size)).any()]
        stacked = np.stack(masks) if masks else np.zeros((0, *image.size), bool)
        return Detections.from_masks(stacked, [0] * len(masks), [1.0] * len(masks), ("object",))

    def cut(self, image: Image) -> tuple[npt.NDArray[np.uint8], list[Cut]]:
        """The square that DINO sees of an image, and what each round cut out of it."""
        square = np.asarray(PIL.Image.fromarray(image.pixels).resize((self.settings.side,) * 2, PIL.Image.Resampling.LANCZOS))
        (keys,) = self.dino.extract_keys([Image(square, image.id)])
        return square, cut_masks(keys.values.float().cpu().numpy(), self.settings.cuts)

    def _draw(self, square: npt.NDArray[np.uint8], cuts: Sequence[Cut]) -> Iterator[Mask]:
        """The masks of a square, less what earlier ones hold, those that the field tears apart left out."""
        taken, crf = np.zeros(square.shape[:2], bool), None
        for cut in cuts:
            mask = resize_nearest(torch.from_numpy(cut.mask), (self.settings.side,) * 2).numpy() & ~taken
            taken |= mask
            if not mask.any() or self.settings.crf is None:
                yield mask
                continue
            crf = crf or DenseCrf(square, self.settings.crf)
            drawn = np.asarray(binary_fill_holes(crf.refine(mask)), bool)
            if (drawn & mask).sum() >= self.settings.agree * (drawn | mask).sum():
                yield drawn


def _resize_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask at another size (H, W), bicubic, cut at half of its maximum."""
    gray = PIL.Image.fromarray(mask.astype(np.uint8) * 255).resize(size[::-1], PIL.Image.Resampling.BICUBIC)
    pixels = np.asarray(gray)
    return np.asarray(pixels > pixels.max() / 2, bool)
