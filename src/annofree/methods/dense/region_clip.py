"""Attention within regions: cells of CLIP see only cells of the same thing, as SAM draws it (the idea of CorrCLIP, ICCV 2025).

    image -> SAM's everything mode -> regions, the surest first -> which cells may see each other
          -> CLIP's last values, mixed within their region, by DINO's likeness where there is a DINO -> likeness to the names
          -> one name a region, by the mean of its cells or by the most pixels

Written from the idea as papers describe it: scope by regions, weights by a DINO, maps set right by the regions.  Their merging
of regions and their further branches are not here.  R rows scored, N regions, h w cells, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from annofree.clues.background import Asked
from annofree.detections.painting import Draw
from annofree.errors import InputError
from annofree.methods.class_agnostic.sam_everything import SamEverything, SamEverythingSettings
from annofree.methods.dense.dense_clip import DenseEncoding, require_part
from annofree.methods.dense.mixed_clip import MixedClip, MixedSettings, count_pixels
from annofree.ops.rle import decode_rle
from annofree.protocols import Masker, SelfSupervised, VisionLanguage
from annofree.structures import Detections, FeatureMap, Image, LabelMap

__all__ = ["VARIANTS", "RegionClip", "RegionClipSettings", "average_in_regions", "number_regions", "vote_in_regions"]


@dataclass(frozen=True)
class RegionClipSettings(MixedSettings):
    """What may be chosen, beside how DINO's likeness becomes weights."""

    # SAM's everything mode by the name of its variant; ``default`` is what was chosen with the models of the preset
    candidates: Literal["default", "official", "paper", "paper-nms", "fast"] = "default"
    # part of a mask that surer ones must leave free, else it is no region
    visible: float = 0.5
    # px of a region at least
    min_region: int = 0
    # whether cells see only those of their region; else regions only smooth the answer
    restrict: bool = True
    # how a region gets one name: by the ``mean`` scores of its cells, by the name of most of its pixels (``majority``), or not
    smooth: Literal["mean", "majority", "none"] = "majority"
    # what no mask holds: pixels that keep their own names (``free``), or one more region (``region``, ours)
    rest: Literal["free", "region"] = "free"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.visible <= 1 or self.min_region < 0:
            raise InputError(f"expected visible from 0 to 1 and min_region from 0, got {self.visible} and {self.min_region}")


_PLAIN = RegionClipSettings(shift=0.0, scale=3.0)
VARIANTS: Mapping[str, RegionClipSettings] = MappingProxyType(
    {"default": _PLAIN, "mean": replace(_PLAIN, smooth="mean"), "rough": replace(_PLAIN, smooth="none")}
)


class RegionClip(MixedClip[RegionClipSettings]):
    """Names in, a label map or its regions out, by a frozen CLIP, SAM, and a DINO where there is one.

    ``everything`` are the settings of SAM's everything mode, in place of those of its variant.  Raises InputError for a CLIP
    that does not give its last values, and for settings that the DINO cannot follow.
    """

    name: ClassVar[str] = "region_clip"
    variants: ClassVar[Mapping[str, Any]] = VARIANTS

    def __init__(
        self,
        clip: VisionLanguage,
        sam: Masker,
        dino: SelfSupervised | None = None,
        settings: RegionClipSettings | str = "default",
        everything: SamEverythingSettings | None = None,
    ) -> None:
        super().__init__(clip, dino, settings)
        self.everything = SamEverything(sam, everything or self.settings.candidates)

    @property
    def provenance(self) -> dict[str, Any]:
        """Method, path, settings, and the models with their hashes and tiers; SAM's everything mode with its own."""
        told, sam = super().provenance, self.everything.provenance
        return told | {"models": [*told["models"], *sam["models"]], "everything": sam["settings"]}

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """Two of these on the same models can share an encoding when their keys are equal."""
        s = self.settings
        return (*super().encoding_key, self.everything.settings, s.visible, s.min_region, s.restrict)

    def encode(self, images: Sequence[Image]) -> list[DenseEncoding]:
        """Draw regions and mix CLIP's values within them; one encoding an image, in order."""
        s, kept = self.settings, self.settings.refine != "none"
        found = self.everything.discover(images) if images else []
        numbers = [number_regions(each, s.visible, s.min_region) for each in found]
        tokens: list[FeatureMap] = self._mixed(images, numbers if s.restrict else [None] * len(numbers)) if images else []
        each = zip(images, tokens, numbers, strict=True)
        return [DenseEncoding(i.size, t, image=i if kept else None, regions=n) for i, t, n in each]

    def _labeled(self, encoding: DenseEncoding, asked: Asked, best: Tensor, values: Tensor) -> LabelMap:
        found = super()._labeled(encoding, asked, best, values)
        if self.settings.smooth != "majority":
            return found
        return vote_in_regions(found, self._find_smoothed(encoding).cpu())

    def _drawing(self, encoding: DenseEncoding, asked: Asked) -> Draw:
        """The family's; regions have the mean of their cells where that smooths."""
        plain = super()._drawing(encoding, asked)
        if self.settings.smooth != "mean":
            return plain
        regions = self._find_smoothed(encoding).to(encoding.tokens.values.device)
        means = average_in_regions(self.compute_scores(encoding, asked), regions)
        return lambda part: torch.where(regions > 0, means[part][:, regions], plain(part))

    def _find_smoothed(self, encoding: DenseEncoding) -> Tensor:
        """The regions (H, W) that get one name each, from 1; what none holds is the last of them where it is one, else 0."""
        regions = require_part(encoding.regions, "the regions")
        return regions if self.settings.rest == "free" else torch.where(regions == 0, regions.max() + 1, regions)


def number_regions(found: Detections, visible: float = 0.5, min_region: int = 0) -> Tensor:
    """Number the pixels (H, W) int32 by the surest mask that holds them, from 1, 0 where there is none.

    From the surest mask down each takes the pixels that are free, or none where those are less than the part ``visible`` of it,
    or fewer than ``min_region``.

    >>> masks = np.array([[[1, 1, 0]], [[1, 1, 1]], [[0, 1, 1]]], bool)
    >>> found = Detections.from_masks(masks, [0, 0, 0], [0.9, 0.8, 0.7], ["object"])
    >>> number_regions(found).tolist(), number_regions(found, 0.6).tolist()
    ([[1, 1, 2]], [[1, 1, 0]])
    """
    numbers, count = np.zeros(found.size, np.int32), 0
    for k in np.argsort(-found.scores, kind="stable").tolist():
        mask = decode_rle(found.rles[k]).astype(bool)
        free = mask & (numbers == 0)
        if np.count_nonzero(free) >= max(1, min_region, visible * np.count_nonzero(mask)):
            count += 1
            numbers[free] = count
    return torch.from_numpy(numbers)


def average_in_regions(maps: Tensor, regions: Tensor) -> Tensor:
    """The mean of maps (R, h, w) in each region of numbers (H, W), (R, N + 1); cells count by the pixels that they share."""
    counts = count_pixels(regions.cpu(), (maps.shape[1], maps.shape[2])).flatten(1).to(maps)
    return maps.flatten(1) @ counts.T / counts.sum(1).clamp(min=1)


def vote_in_regions(found: LabelMap, regions: Tensor) -> LabelMap:
    """Give all pixels of a region the name that most of them have, of equals the first; those outside of all keep theirs.

    >>> regions = torch.tensor([[1, 1, 1, 0]], dtype=torch.int32)
    >>> vote_in_regions(LabelMap(np.array([[1, 1, 0, 0]], np.int32), ("a", "b")), regions).labels.tolist()
    [[1, 1, 1, 0]]
    """
    numbers, count = regions.numpy(), len(found.names)
    votes = np.bincount((numbers.astype(np.int64) * count + found.labels).ravel(), minlength=(int(numbers.max()) + 1) * count)
    winners = votes.reshape(-1, count).argmax(1).astype(np.int32)
    return replace(found, labels=np.where(numbers > 0, winners[numbers], found.labels))
