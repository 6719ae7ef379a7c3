"""One object an image, found in a DINO's cells: LOST, TokenCut, deep spectral methods, DINO's attention.

H W pixels, h w cells.  These have no score: all are 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch

from annofree.fragments.discovery import DISCOVERY
from annofree.methods.class_agnostic.base import ClassAgnosticByDino
from annofree.methods.variants import choose_settings
from annofree.ops.grids import resize_nearest
from annofree.protocols import SelfSupervised
from annofree.structures import Detections, FeatureMap, Image

__all__ = ["VARIANTS", "Discovery", "DiscoverySettings"]


@dataclass(frozen=True)
class DiscoverySettings:
    """What may be chosen."""

    # whose rule says where the object is
    rule: Literal["lost", "tokencut", "dss", "dino-seg"] = "tokencut"


VARIANTS: Mapping[str, DiscoverySettings] = MappingProxyType(
    {
        "default": DiscoverySettings(),
        "tokencut": DiscoverySettings("tokencut"),
        "lost": DiscoverySettings("lost"),
        "dss": DiscoverySettings("dss"),
        "dino-seg": DiscoverySettings("dino-seg"),
    }
)
"""A variant a rule; the default is TokenCut's, the best of them by their papers' figures."""


class Discovery(ClassAgnosticByDino):
    """The one object of an image, in whole cells of a ``dino``; raises InputError for an unknown variant."""

    name = "discovery"

    def __init__(self, dino: SelfSupervised, settings: DiscoverySettings | str = "default") -> None:
        self.settings = choose_settings(self.name, settings, VARIANTS)
        self.dino = dino

    def discover(self, images: Sequence[Image]) -> list[Detections]:
        """The object of each image, or none; images are padded to whole cells, or cropped to them for ``dss``."""
        rule = self.settings.rule
        read = self.dino.extract_attention if rule == "dino-seg" else self.dino.extract_keys
        seen = [self._crop(image) for image in images] if rule == "dss" else images
        return [self._answer(rule, cells, image) for cells, image in zip(read(seen), images, strict=True)]

    def _answer(self, rule: str, cells: FeatureMap, image: Image) -> Detections:
        mask = DISCOVERY[rule](cells.values.float().cpu().numpy())
        drawn = np.zeros(image.size, bool)
        enlarged = resize_nearest(torch.from_numpy(mask), cells.window or cells.size).numpy()
        seen = enlarged[: image.size[0], : image.size[1]]
        drawn[: seen.shape[0], : seen.shape[1]] = seen
        return Detections.from_masks(drawn[None], [0], [1.0], ("object",))

    def _crop(self, image: Image) -> Image:
        """An image without what is no whole cell at the bottom and the right; one smaller than a cell stays."""
        height, width = (max(n - n % self.dino.patch, min(n, self.dino.patch)) for n in image.size)
        return Image(np.ascontiguousarray(image.pixels[:height, :width]), image.id)
