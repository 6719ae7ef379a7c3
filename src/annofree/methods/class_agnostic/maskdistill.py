"""MaskDistill's first stage (Van Gansbeke et al., 2022): one mask an image, from a DINO's keys and attention.

image -> short side of 640 px -> keys and attention of DINO -> cells that go with the one most attended to -> mask of the image

H W pixels, h w cells.  There is no score: all are 1.  The released code turns masks into polygons, 2 px off at most; ours stay
as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import PIL.Image
import torch

from annofree.errors import InputError
from annofree.fragments.maskdistill import MaskDistillSettings, find_by_affinity
from annofree.methods.class_agnostic.base import ClassAgnosticByDino
from annofree.methods.variants import choose_settings
from annofree.ops.grids import resize_nearest
from annofree.protocols import SelfSupervised
from annofree.structures import BoolArray, Detections, FeatureMap, Image

__all__ = ["VARIANTS", "MaskDistill", "MaskDistillMethodSettings"]


@dataclass(frozen=True)
class MaskDistillMethodSettings:
    """What may be chosen."""

    # px of the short side that images are brought to, bilinear, before DINO sees them (released code); None keeps their size.
    # A DINO with a side of its own resizes them once more
    side: int | None = 640
    # which cells are joined
    affinity: MaskDistillSettings = field(default_factory=MaskDistillSettings)

    def __post_init__(self) -> None:
        if self.side is not None and self.side < 1:
            raise InputError(f"expected a side of at least 1 px, got {self.side}")


VARIANTS: Mapping[str, MaskDistillMethodSettings] = MappingProxyType({"default": MaskDistillMethodSettings()})
"""The released settings."""


class MaskDistill(ClassAgnosticByDino):
    """The one object of an image by the affinity of a ``dino``'s keys; raises InputError for an unknown variant."""

    name = "maskdistill"

    def __init__(self, dino: SelfSupervised, settings: MaskDistillMethodSettings | str = "default") -> None:
        self.settings = choose_settings(self.name, settings, VARIANTS)
        self.dino = dino

    def discover(self, images: Sequence[Image]) -> list[Detections]:
        """The object of each image, or none."""
        found = []
        for image in images:  # one after the other: at 640 px they are many cells
            ((keys, attention),) = self.dino.extract_keys_and_attention([self._resize(image)])
            cells, rows = (part.values.float().cpu().numpy() for part in (keys, attention))
            mask = _draw(find_by_affinity(cells, rows, self.settings.affinity), keys, image.size)[None]
            mask = mask[mask.any((1, 2))]
            found.append(Detections.from_masks(mask, [0] * len(mask), [1.0] * len(mask), ("object",)))
        return found

    def _resize(self, image: Image) -> Image:
        if self.settings.side is None:
            return image
        scale = self.settings.side / min(image.size)
        height, width = (max(1, round(n * scale)) for n in image.size)
        pixels = PIL.Image.fromarray(image.pixels).resize((width, height), PIL.Image.Resampling.BILINEAR)
        return Image(np.asarray(pixels), image.id)


def _draw(cells: BoolArray, seen: FeatureMap, size: tuple[int, int]) -> BoolArray:
    """A mask (h, w) of the cells of ``seen`` at a ``size`` (H, W), bicubic: all that is not 0 counts (released code)."""
    whole = resize_nearest(torch.from_numpy(cells), seen.window or seen.size).numpy()
    gray = PIL.Image.fromarray(whole[: seen.size[0], : seen.size[1]].astype(np.uint8) * 255)
    return np.asarray(np.asarray(gray.resize(size[::-1], PIL.Image.Resampling.BICUBIC)) > 0, bool)
