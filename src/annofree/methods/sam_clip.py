"""SAM + CLIP, the baseline of Zip's Tables 1, 3 and 5: masks of everything, each named by what CLIP sees of it.

    image -> grid of points -> SAM -> masks, or SAM's everything mode -> CLIP (box by box, cut out, or one pass) -> names

The paper has two readings: masks of a grid in one pass (appendix A), and SAM's own "segment everything", crop by crop.
G points, N masks, K classes, D embedding, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from annofree.clues.background import with_negatives
from annofree.clues.regions import Look, encode_looks
from annofree.detections.proposals import build_point_grid
from annofree.detections.verification import Naming
from annofree.errors import InputError
from annofree.methods.class_agnostic.sam_everything import SamEverything, SamEverythingSettings
from annofree.methods.variants import choose_settings
from annofree.ops.boxes import compute_tight_boxes
from annofree.ops.rle import encode_rles
from annofree.protocols import Embedding, Masker, VisionLanguage
from annofree.structures import BoolArray, Classes, Detections, Image, Vocabulary

__all__ = ["VARIANTS", "SamClip", "SamClipEncoding", "SamClipSettings"]


@dataclass(frozen=True)
class SamClipSettings:
    """What may be chosen."""

    # candidates: masks of a ``grid`` of points, as the four settings below say, or SAM's everything mode by the name of its
    # variant (``methods/class_agnostic/sam_everything.py``), which those settings do not touch
    candidates: Literal["grid", "default", "official", "paper", "paper-nms", "fast"] = "grid"
    # points a side of the grid, at cell centers (32 in SAM and in the paper)
    points: int = 32
    # three masks a point, of which the one of best predicted quality is kept, or one (the paper's parallel form)
    many: bool = False
    # least of SAM's own guess, in 0 .. 1; 0 keeps all (the parallel form)
    min_quality: float = 0.0
    # box IoU above which the weaker of two masks is dropped; 1 keeps all (the parallel form)
    nms: float = 1.0
    # what CLIP sees of a mask: its box in one pass, by RoIAlign (``pooled``, appendix A.2), the crop of its ``box``, or that
    # with all outside of the mask blanked (``masked``); the paper does not say which of the crops
    look: Look = "pooled"
    # of the softmax over the names that makes probabilities of cosines, CLIP's own 100; at 0 it is the cosine itself, so that
    # asking for more names changes no score but by rounding; the paper does not say
    scale: float = 0.0
    # the ``geometric`` mean of CLIP's and SAM's (Zip, section 1), or the score of one of them alone
    score: Literal["geometric", "clip", "sam"] = "geometric"
    # a mask whose nearest name has a lower cosine than this has no name
    min_likeness: float = 0.0
    # detections per image, the strongest
    most: int = 100
    # names that compete with the classes for each mask and are never told (ours)
    negatives: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.points < 1 or self.scale < 0:
            raise InputError(f"expected at least 1 point a side and a scale from 0, got {self.points} and {self.scale}")


VARIANTS: Mapping[str, SamClipSettings] = MappingProxyType(
    {
        "default": SamClipSettings(many=True, nms=0.7),
        "paper": SamClipSettings(),
        "crops": SamClipSettings(many=True, nms=0.7, look="box"),
        "masked": SamClipSettings(many=True, nms=0.7, look="masked"),
        "everything": SamClipSettings(candidates="default", look="box"),
        "official": SamClipSettings(candidates="official", look="box"),
    }
)
"""``paper`` is the parallel form in the paper of Zip: one mask a point, nothing dropped, one pass of CLIP.  ``official`` names
what SAM's released generator finds, crop by crop, and ``everything`` the same by the thresholds chosen for the models."""


@dataclass(frozen=True, eq=False)
class SamClipEncoding:
    """All of an image that needs no class name: ``masks`` (N, H, W), their ``quality`` (N), their CLIP ``features`` (N, D)."""

    masks: BoolArray
    quality: Tensor
    features: Tensor


_Drawn = tuple[BoolArray, Tensor]
"""Masks (N, H, W) and their quality (N)."""


class SamClip:
    """Draw everything, then name it; ``clip`` and ``sam`` are whatever fits the protocols.

    ``everything`` are the settings of SAM's everything mode where it brings the candidates, in place of those of its variant.
    """

    def __init__(
        self,
        clip: VisionLanguage,
        sam: Masker,
        settings: SamClipSettings | str = "default",
        everything: SamEverythingSettings | None = None,
    ) -> None:
        self.clip, self.sam = clip, sam
        self.settings = choose_settings("sam_clip", settings, VARIANTS)
        how, grid = everything or self.settings.candidates, self.settings.candidates == "grid"
        self._everything = None if grid else SamEverything(sam, how)

    @property
    def provenance(self) -> dict[str, Any]:
        """Method, settings, and the models with their hashes and tiers."""
        own = {"method": "sam_clip", "settings": asdict(self.settings), "models": [self.clip.provenance, self.sam.provenance]}
        return own | ({"everything": self._everything.provenance["settings"]} if self._everything else {})

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """Two of these on the same models can share an encoding when their keys are equal."""
        s = self.settings
        everything = self._everything.settings if self._everything else None
        return "sam_clip", everything, s.points, s.many, s.min_quality, s.nms, s.look

    def remarks(self, classes: Classes) -> list[str]:
        """What a person should know before trusting the answer for these names."""
        return self.clip.remarks(with_negatives(Vocabulary.of(classes), self.settings.negatives))

    def encode(self, images: Sequence[Image]) -> list[SamClipEncoding]:
        """Draw all masks of each image and look at them with CLIP."""
        drawn = self._discover(images) if self._everything else map(self._draw_grid, self.sam.embed(images) if images else [])
        return [self._encoded(*each) for each in zip(images, drawn, strict=True)]

    def instances(self, image: Image | SamClipEncoding, classes: Classes) -> Detections:
        """Name each mask by its likeliest class, the highest score first."""
        vocabulary = Vocabulary.of(classes)
        encoding = self.encode([image])[0] if isinstance(image, Image) else image
        words = self.clip.encode_text(with_negatives(vocabulary, self.settings.negatives))
        best, ids = (encoding.features.to(words) @ words.T).clamp(min=0).max(1)
        scores = self._score(encoding, words, best)
        order = torch.argsort(scores, descending=True, stable=True)
        named = (best > 0) & (best >= self.settings.min_likeness)  # unlike every name, the first of the list would win
        named &= ids < len(vocabulary)
        order = order[named[order]][: self.settings.most]
        masks = encoding.masks[order.cpu().numpy()]
        return Detections.from_masks(masks, ids[order].cpu().numpy(), scores[order].cpu().numpy(), vocabulary.names)

    def _score(self, encoding: SamClipEncoding, words: Tensor, best: Tensor) -> Tensor:
        """The scores (N) of masks whose ``best`` names have these cosines (N)."""
        s, quality = self.settings, encoding.quality.to(best)
        sure = Naming(s.scale).compute_shares(encoding.features.to(words), words).amax(1) if s.scale else best
        scores = {"geometric": (sure * quality).sqrt(), "clip": sure, "sam": quality}[s.score]
        return scores.clamp(max=1)  # a cosine may round to more

    def _encoded(self, image: Image, drawn: _Drawn) -> SamClipEncoding:
        masks, quality = drawn
        features = encode_looks(self.clip, image, encode_rles(masks), self.settings.look)
        return SamClipEncoding(masks, quality.to(features), features)

    def _discover(self, images: Sequence[Image]) -> list[_Drawn]:
        """Masks of SAM's everything mode with their quality, for each image."""
        found = self._everything.discover(images) if self._everything else []
        return [(each.masks, torch.from_numpy(each.scores)) for each in found]

    def _draw_grid(self, embedding: Embedding) -> _Drawn:
        """Masks (N, H, W) for a grid of points, with their quality (N) in 0 .. 1, filtered as the settings say."""
        drawn = self.sam.predict_masks(
            embedding, points=build_point_grid(self.settings.points, embedding.size), multimask=self.settings.many
        )
        quality, best = drawn.quality.clamp(0, 1).max(1)
        masks: BoolArray = drawn.masks[torch.arange(len(best)), best].cpu().numpy()
        quality = quality.cpu()
        keep = np.flatnonzero(masks.any((1, 2)) & (quality.numpy() >= self.settings.min_quality))
        if self.settings.nms < 1:
            kept = nms(torch.from_numpy(compute_tight_boxes(masks[keep])), quality[keep], self.settings.nms)
            keep = keep[kept.numpy()]
        return masks[keep], quality[keep]
