"""SAM + CLIP, the baseline of Zip's Table 1: masks from a grid of points, each named by CLIP from its box.

    image -> grid of points -> SAM -> masks -> their boxes -> CLIP (crop by crop, or one pass and RoIAlign) -> names

G points, N masks, K classes, D embedding, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.ops import nms

from annofree.clues.background import with_negatives
from annofree.detections.proposals import build_point_grid
from annofree.methods.variants import choose_settings
from annofree.ops.boxes import compute_tight_boxes
from annofree.protocols import Embedding, Masker, VisionLanguage
from annofree.structures import Classes, Detections, Image, Vocabulary

__all__ = ["VARIANTS", "SamClip", "SamClipEncoding", "SamClipSettings"]


@dataclass(frozen=True)
class SamClipSettings:
    """What may be chosen."""

    # points a side of the grid, at cell centers (32 in SAM and in the paper)
    points: int = 32
    # three masks a point, of which the one of best predicted quality is kept, or one (the paper's parallel form)
    many: bool = False
    # least of SAM's own guess, in 0 .. 1; 0 keeps all (the parallel form)
    min_quality: float = 0.0
    # box IoU above which the weaker of two masks is dropped; 1 keeps all (the parallel form)
    nms: float = 1.0
    # whether all boxes are named from one pass by RoIAlign (appendix A.2), or from each crop
    pooled: bool = True
    # a mask whose nearest name has a lower cosine than this has no name
    min_likeness: float = 0.0
    # detections per image, the strongest
    most: int = 100
    # names that compete with the classes for each mask and are never told (ours)
    negatives: tuple[str, ...] = ()


VARIANTS: Mapping[str, SamClipSettings] = MappingProxyType(
    {
        "default": SamClipSettings(many=True, nms=0.7),
        "paper": SamClipSettings(),
        "crops": SamClipSettings(many=True, nms=0.7, pooled=False),
    }
)


@dataclass(frozen=True, eq=False)
class SamClipEncoding:
    """All of an image that needs no class name: ``masks`` (N, H, W), their ``quality`` (N), their CLIP ``features`` (N, D)."""

    masks: npt.NDArray[np.bool_]
    quality: Tensor
    features: Tensor


class SamClip:
    """Draw everything, then name it; ``clip`` and ``sam`` are whatever fits the protocols."""

    def __init__(self, clip: VisionLanguage, sam: Masker, settings: SamClipSettings | str = "default") -> None:
        self.clip, self.sam = clip, sam
        self.settings = choose_settings("sam_clip", settings, VARIANTS)

    @property
    def provenance(self) -> dict[str, Any]:
        """Method, settings, and the models with their hashes and tiers."""
        return {"method": "sam_clip", "settings": asdict(self.settings), "models": [self.clip.provenance, self.sam.provenance]}

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """Two of these on the same models can share an encoding when their keys are equal."""
        s = self.settings
        return "sam_clip", s.points, s.many, s.min_quality, s.nms, s.pooled

    def remarks(self, classes: Classes) -> list[str]:
        """What a person should know before trusting the answer for these names."""
        return self.clip.remarks(with_negatives(Vocabulary.of(classes), self.settings.negatives))

    def encode(self, images: Sequence[Image]) -> list[SamClipEncoding]:
        """Draw all masks of each image and look at them with CLIP."""
        return [self._encoded(i, e) for i, e in zip(images, self.sam.embed(images), strict=True)] if images else []

    def instances(self, image: Image | SamClipEncoding, classes: Classes) -> Detections:
        """Name each mask by its likeliest class; the score is the geometric mean of CLIP's and SAM's (Zip, section 1)."""
        vocabulary = Vocabulary.of(classes)
        encoding = self.encode([image])[0] if isinstance(image, Image) else image
        words = self.clip.encode_text(with_negatives(vocabulary, self.settings.negatives))
        # each name by its own cosine, so that asking for more names changes no score but by rounding
        best, ids = (encoding.features @ words.T).clamp(min=0).max(1)
        scores = (best * encoding.quality).sqrt().clamp(max=1)  # a cosine may round to more
        order = torch.argsort(scores, descending=True, stable=True)
        named = (best > 0) & (best >= self.settings.min_likeness)  # unlike every name, the first of the list would win
        named &= ids < len(vocabulary)
        order = order[named[order]][: self.settings.most]
        masks = encoding.masks[order.cpu().numpy()]
        return Detections.from_masks(masks, ids[order].cpu().numpy(), scores[order].cpu().numpy(), vocabulary.names)

    def _encoded(self, image: Image, embedding: Embedding) -> SamClipEncoding:
        masks, quality = self._everything(embedding)
        features = self.clip.encode_crops(image, compute_tight_boxes(masks), pooled=self.settings.pooled)
        return SamClipEncoding(masks, quality.to(features), features)

    def _everything(self, embedding: Embedding) -> tuple[npt.NDArray[np.bool_], Tensor]:
        """Masks (N, H, W) for a grid of points, with their quality (N) in 0 .. 1, filtered as the settings say."""
        drawn = self.sam.predict_masks(
            embedding, points=build_point_grid(self.settings.points, embedding.size), multimask=self.settings.many
        )
        quality, best = drawn.quality.clamp(0, 1).max(1)
        masks: npt.NDArray[np.bool_] = drawn.masks[torch.arange(len(best)), best].cpu().numpy()
        quality = quality.cpu()
        keep = np.flatnonzero(masks.any((1, 2)) & (quality.numpy() >= self.settings.min_quality))
        if self.settings.nms < 1:
            kept = nms(torch.from_numpy(compute_tight_boxes(masks[keep])), quality[keep], self.settings.nms)
            keep = keep[kept.numpy()]
        return masks[keep], quality[keep]
