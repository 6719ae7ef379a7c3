"""Masks without names, named by CLIP: the class-aware rows of CutLER and of others that find things without names.

    masks, stored or found by a method (-> SAM draws each anew) -> what CLIP sees of each -> names and distractors compete

N masks, K names, D embedding, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from annofree.clues.background import with_negatives
from annofree.clues.regions import Look, encode_looks
from annofree.detections.prompting import REDRAWING, Redraw, draw_masks
from annofree.detections.verification import Naming, pick_best_rows
from annofree.errors import InputError
from annofree.methods.class_agnostic.stored_masks import ImageMasks
from annofree.methods.variants import choose_settings
from annofree.ops.rle import compute_rle_areas, compute_rle_boxes, encode_rles, pack_counts, unpack_counts
from annofree.protocols import Embedding, Masker, VisionLanguage
from annofree.structures import RLE, Classes, Detections, Image, Vocabulary

__all__ = ["VARIANTS", "MaskSource", "NamedMasks", "NamedMasksEncoding", "NamedMasksSettings"]

_AT_ONCE = 64


@dataclass(frozen=True)
class NamedMasksSettings:
    """What may be chosen."""

    # what CLIP looks at: the crop of each mask's box, the same with all outside of the mask blanked, or the box in one pass
    look: Look = "box"
    # how SAM draws each mask anew: not, by its box, or then again by the box of what it drew and the center of that
    refine: Redraw = "none"
    # the geometric mean of a mask's own score and its name's probability (Zip, section 1), or its own score alone
    score: Literal["geometric", "own"] = "geometric"
    # how names compete; None: by the scale of the models' output policy, CLIP's own 100 for released ones
    naming: Naming | None = None
    # names that compete with the classes for each mask and are never told
    negatives: tuple[str, ...] = ()


VARIANTS: Mapping[str, NamedMasksSettings] = MappingProxyType(
    {
        "default": NamedMasksSettings(),
        "box": NamedMasksSettings(refine="box"),
        "box+point": NamedMasksSettings(refine="box+point"),
    }
)
"""A variant a way of SAM to draw them anew."""


class MaskSource(Protocol):
    """Where masks without names are from: a file, or a method that is asked for them."""

    @property
    def path(self) -> object:
        """Where they are, for messages."""
        ...

    @property
    def key(self) -> tuple[Any, ...]:
        """Two sources of equal keys have the same masks."""
        ...

    @property
    def provenance(self) -> dict[str, Any]:
        """How the masks were made."""
        ...

    @property
    def models(self) -> list[Mapping[str, Any]]:
        """The models that made them."""
        ...

    @property
    def remarks(self) -> list[str]:
        """What a person should know of them."""
        ...

    def list_masks(self, images: Sequence[Image]) -> list[ImageMasks]:
        """The masks of each image, in order."""
        ...


@dataclass(frozen=True, eq=False)
class NamedMasksEncoding:
    """All of an image of ``size`` (H, W) that needs no name.

    ``counts`` (N), the masks as COCO's compressed run lengths, their own ``scores`` (N), and their CLIP ``features`` (N, D).
    """

    size: tuple[int, int]
    counts: tuple[str, ...]
    scores: Tensor
    features: Tensor


class NamedMasks:
    """Names for ``masks`` of any source by a ``clip``; ``sam`` draws them anew where the settings say so.

    Raises InputError for an unknown variant, and without the SAM that the settings need.
    """

    name: ClassVar[str] = "named_masks"
    variants: ClassVar[Mapping[str, Any]] = VARIANTS

    def __init__(
        self,
        clip: VisionLanguage,
        masks: MaskSource,
        settings: NamedMasksSettings | str = "default",
        sam: Masker | None = None,
    ) -> None:
        self.settings = choose_settings(self.name, settings, self.variants)
        if sam is None and self.settings.refine != "none":
            raise InputError(f"expected a SAM to refine masks by {self.settings.refine}, got none; give one, or refine none")
        self.clip, self.masks, self.sam = clip, masks, sam if self.settings.refine != "none" else None

    @property
    def provenance(self) -> dict[str, Any]:
        """Method, settings, where the masks are from, and all models, those that made the masks among them."""
        own = [model.provenance for model in (self.clip, self.sam) if model is not None]
        return {
            "method": self.name,
            "settings": asdict(self.settings),
            "masks": self.masks.provenance,
            "models": [*own, *self.masks.models],
        }

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """Two of these on the same models can share an encoding when their keys are equal."""
        return "named_masks", self.settings.look, self.settings.refine, self.masks.key

    def remarks(self, classes: Classes) -> list[str]:
        """What a person should know before trusting the answer for these names."""
        own = self.clip.remarks(with_negatives(Vocabulary.of(classes), self.settings.negatives))
        return [*own, *self.masks.remarks]

    def encode(self, images: Sequence[Image]) -> list[NamedMasksEncoding]:
        """Take the masks of each image, refine them where that is asked for, and look at them with CLIP.

        Raises InputError for an image whose masks are not there, are of another size, or are boxes that nothing refines.
        """
        stored = [self._check(*each) for each in zip(images, self.masks.list_masks(images), strict=True)]
        embedded = self.sam.embed(images) if self.sam is not None and images else [None] * len(images)
        return [self._encode(*each) for each in zip(images, stored, embedded, strict=True)]

    def _check(self, image: Image, found: ImageMasks) -> ImageMasks:
        if found.size != image.size:
            its, got = (f"{width}x{height}" for height, width in (image.size, found.size))
            raise InputError(f"expected masks of {image.id} at its size, {its}, got {got} in {self.masks.path}")
        if found.boxes and self.sam is None:
            raise InputError(f"expected masks of {image.id}, got {found.boxes} boxes alone; --refine box draws masks in them")
        return found

    def _encode(self, image: Image, stored: ImageMasks, embedding: Embedding | None) -> NamedMasksEncoding:
        filled = np.flatnonzero(compute_rle_areas(stored.rles) > 0) if stored.counts else np.zeros(0, np.int64)
        rles, scores = [stored.rles[k] for k in filled], np.array(stored.scores, np.float32)[filled]
        if embedding is not None:
            rles = [drawn for some in _group(rles) for drawn in self._refine(some, image.size, embedding)]
        seen = encode_looks(self.clip, image, rles, self.settings.look)
        return NamedMasksEncoding(image.size, pack_counts(rles), torch.from_numpy(scores), seen)

    def _refine(self, rles: Sequence[RLE], size: tuple[int, int], embedding: Embedding) -> list[RLE]:
        """Each mask as SAM draws it; one of which SAM draws nothing stays as it was."""
        assert self.sam is not None  # noqa: S101 -- who has embeddings has a SAM
        how = REDRAWING[self.settings.refine]
        drawn, _ = draw_masks(self.sam, embedding, compute_rle_boxes(rles), how, "box+point")
        again = encode_rles(drawn)
        return [new if area else old for new, old, area in zip(again, rles, compute_rle_areas(again), strict=True)]

    def instances(self, image: Image | NamedMasksEncoding, classes: Classes) -> Detections:
        """Each mask under its likeliest name, those that a negative wins left out; the highest score first."""
        vocabulary = Vocabulary.of(classes)
        encoding = self.encode([image])[0] if isinstance(image, Image) else image
        found = self.verify(encoding, vocabulary, self.settings.negatives)
        return replace(found[found.class_ids < len(vocabulary)], names=vocabulary.names)

    def verify(self, encoding: NamedMasksEncoding, vocabulary: Vocabulary, distractors: Sequence[str]) -> Detections:
        """Name the masks by competition of some names and distractors, in this order; the highest score first."""
        rows = with_negatives(vocabulary, distractors)
        if not encoding.counts:
            return Detections.none(encoding.size, rows.names)
        words = self.clip.encode_text(rows)
        shares = (self.settings.naming or Naming()).compute_shares(encoding.features.to(words), words)
        scores = encoding.scores.numpy()
        if self.settings.score == "geometric":
            scores = np.sqrt(scores * shares.max(1).values.cpu().numpy())
        rles = unpack_counts(encoding.counts, encoding.size)
        ids, boxes = pick_best_rows(shares), compute_rle_boxes(rles)
        found = Detections(encoding.size, rows.names, ids, scores.astype(np.float32).clip(0, 1), boxes, rles)
        return found[np.argsort(-found.scores, kind="stable")]


def _group(rles: Sequence[RLE]) -> Iterator[Sequence[RLE]]:
    return (rles[start : start + _AT_ONCE] for start in range(0, len(rles), _AT_ONCE))
