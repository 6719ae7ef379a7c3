"""CLIP-DIY's other way to use a detector without names (WACV 2024, Table 4, "CutLER mask"): each mask by itself, no windows.

    image -> masks of things -> the crop of each, black outside of it -> CLIP -> its likeliest name, poured back into the mask

N masks, K names, D embedding, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from annofree.clues.background import Background
from annofree.clues.regions import Look
from annofree.detections.painting import average_over_regions, convert_regions
from annofree.detectors.config import OBJECT
from annofree.errors import InputError
from annofree.methods.class_agnostic.named_masks import NamedMasks, NamedMasksEncoding, NamedMasksSettings
from annofree.methods.class_agnostic.stored_masks import ImageMasks
from annofree.ops.regions import label_components
from annofree.ops.rle import decode_rle, pack_counts
from annofree.protocols import Masker, Objectness, VisionLanguage
from annofree.structures import VOID, Classes, Detections, Image, LabelMap

__all__ = ["VARIANTS", "MaskCrops", "MaskCropsSettings", "ObjectMasks", "split_objectness"]


@dataclass(frozen=True)
class MaskCropsSettings(NamedMasksSettings):
    """What may be chosen; raises InputError for a background that is told by a score."""

    # what CLIP looks at: the square around each mask, black outside of it, as CLIP-DIY did
    look: Look = "black"
    # words that compete for each mask, and whose masks are background, as is all outside of masks
    background: Background = field(default_factory=Background)

    def __post_init__(self) -> None:
        if self.background.rule not in ("words", "none"):
            raise InputError(f"expected the background rule words or none of mask crops, got {self.background.rule}")


VARIANTS: Mapping[str, MaskCropsSettings] = MappingProxyType(
    {"default": MaskCropsSettings(), "paper": MaskCropsSettings(score="own")}
)
"""In ``paper`` the mask that its finder is surest of lies on top; it does not say, and this is the order of CutLER's masks."""


@runtime_checkable
class Separating(Protocol):
    """An objectness that is made of masks, and gives them."""

    def find_masks(self, images: Sequence[Image]) -> list[Detections]:
        """The masks of each image, in order."""
        ...


class ObjectMasks:
    """The masks that an ``objectness`` is made of, or the regions of its map, as a source of masks that CLIP names."""

    path = "the objectness"

    def __init__(self, objectness: Objectness) -> None:
        self.objectness = objectness

    @property
    def key(self) -> tuple[Any, ...]:
        """How the objectness is made."""
        return (repr(self.provenance),)

    @property
    def provenance(self) -> dict[str, Any]:
        """That of the objectness."""
        return self.objectness.provenance

    @property
    def models(self) -> list[Mapping[str, Any]]:
        """Those of the finder of its masks, else the objectness itself."""
        finder = self.provenance.get("segmenter")
        return list(finder.get("models", [])) if finder else [self.provenance]

    @property
    def remarks(self) -> list[str]:
        """None."""
        return []

    def list_masks(self, images: Sequence[Image]) -> list[ImageMasks]:
        """The masks of each image with their scores, in order."""
        if isinstance(self.objectness, Separating):
            found = self.objectness.find_masks(images)
        else:
            found = [split_objectness(each) for each in self.objectness.predict_maps(images)]
        return [ImageMasks(each.size, pack_counts(each.rles), tuple(each.scores.tolist())) for each in found]


def split_objectness(values: Tensor, at_least: float = 0.5) -> Detections:
    """The connected regions of a map (H, W) that reach a value, each scored by its mean, as detections without names.

    >>> import torch
    >>> split_objectness(torch.tensor([[0.9, 0.2, 0.6]])).scores.tolist()
    [0.8999999761581421, 0.6000000238418579]
    """
    regions = label_components((values.cpu() >= at_least).long(), 8)
    count = int(regions.max())
    scores = average_over_regions(regions, count, [values.clamp(0, 1)])[:, 0]
    return convert_regions(regions, [0] * count, scores, (OBJECT,))


class MaskCrops(NamedMasks):
    """Names in, a label map or the masks out, by a frozen CLIP and an ``objectness`` that says where things are.

    Raises InputError where there is no objectness, for an unknown variant, and without the SAM that the settings need.
    """

    name: ClassVar[str] = "mask_crops"
    variants: ClassVar[Mapping[str, Any]] = VARIANTS
    settings: MaskCropsSettings

    def __init__(
        self,
        clip: VisionLanguage,
        objectness: Objectness | None,
        settings: MaskCropsSettings | str = "default",
        sam: Masker | None = None,
    ) -> None:
        if objectness is None:
            raise InputError("expected an objectness whose masks are named, got none; choose a source, such as maskcut")
        super().__init__(clip, ObjectMasks(objectness), settings, sam)

    def semantic(self, image: Image | NamedMasksEncoding, classes: Classes) -> LabelMap:
        """Name every pixel by the strongest mask on it; what no mask has is background, or void where there is none."""
        asked = self.settings.background.list_rows(classes)
        encoding = self.encode([image])[0] if isinstance(image, Image) else image
        found = self.verify(encoding, asked.rows, self.settings.negatives)
        nothing = VOID if asked.background is None else asked.background
        labels = np.full(encoding.size, nothing, np.int32)
        owner = [*asked.owner, *(nothing for _ in found.names[len(asked.owner) :])]
        for k in reversed(range(len(found))):
            labels[decode_rle(found.rles[k])] = owner[int(found.class_ids[k])]
        return LabelMap(labels, asked.names, asked.background)
