"""CLIP Surgery (Li et al., 2023): value-value attention beside the trained one, less what all names share.

R rows scored, D embedding, h w cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from torch import Tensor
from torch.nn import functional as F

from annofree.clues.background import Asked, Background
from annofree.clues.similarity import compute_cosine_clues, stretch_to_unit
from annofree.errors import InputError
from annofree.methods.dense.dense_clip import DenseClip, DenseEncoding, DenseSettings, compute_similarity, require_part
from annofree.protocols import DensePath, RawClip
from annofree.structures import FeatureMap, Image

__all__ = ["VARIANTS", "ClipSurgery", "ClipSurgerySettings", "score_class_set"]

_WHOLE_SCALE = 2.0  # of the whole image's logits, as released


@dataclass(frozen=True)
class ClipSurgerySettings(DenseSettings):
    """What may be chosen, beside what the family shares."""

    # what is taken from each name's features: the ``empty`` text's (the model's neutral feature: released code when it is given
    # one), the mean over the names asked for, weighed by the whole image (``classes``: released code otherwise; the answer then
    # depends on the list), or ``none``
    redundant: Literal["empty", "classes", "none"] = "empty"
    # what weighs the names in ``classes``: the feature of the whole ``image`` at its own size (ours), or the class token of the
    # pass that the cells are from (``pass``: released code)
    weigh_by: Literal["image", "pass"] = "image"
    # whether each class's map runs from 0 to 1, be the class there or not (the released maps)
    stretch: bool = False


_PLAIN = ClipSurgerySettings()
VARIANTS: Mapping[str, ClipSurgerySettings] = MappingProxyType(
    {
        "default": _PLAIN,
        "official": replace(_PLAIN, redundant="classes", weigh_by="pass", stretch=True, background=Background("none")),
        "classes": replace(_PLAIN, redundant="classes"),
        "pamr": replace(_PLAIN, refine="pamr"),
    }
)


class ClipSurgery(DenseClip[ClipSurgerySettings]):
    """Names in, a label map or its regions out, by a frozen CLIP alone."""

    name: ClassVar[str] = "clip_surgery"
    variants: ClassVar[Mapping[str, Any]] = VARIANTS

    @property
    def path(self) -> DensePath:
        """Value-value attention."""
        return "surgery"

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """Two of these on the same model can share an encoding when their keys are equal."""
        return (*super().encoding_key, self.settings.redundant == "classes" and self.settings.weigh_by)

    def encode(self, images: Sequence[Image]) -> list[DenseEncoding]:
        """Read the cells of each image, and the whole of it where that weighs the names."""
        if images and self.settings.redundant == "classes" and self.settings.weigh_by == "pass":
            return self._encode_with_tokens(images)
        encodings = super().encode(images)
        if self.settings.redundant != "classes" or not encodings:
            return encodings
        return [replace(e, whole=w) for e, w in zip(encodings, self.clip.encode_image(images), strict=True)]

    def _encode_with_tokens(self, images: Sequence[Image]) -> list[DenseEncoding]:
        """Cells and the class token of one pass; of moved copies the mean."""
        if not isinstance(self.clip, RawClip):
            raise InputError("weigh_by 'pass' needs a CLIP that gives the class token of its dense pass; set it to 'image'")
        kept, found = self.settings.refine != "none", []
        for image, (cells, tokens) in zip(images, self.clip.encode_raw(images, self.path), strict=True):
            units = FeatureMap(F.normalize(cells.values, dim=0), cells.size)
            whole = F.normalize(tokens.mean(0), dim=0)
            found.append(DenseEncoding(image.size, units, whole, image=image if kept else None))
        return found

    def compute_scores(self, encoding: DenseEncoding, asked: Asked) -> Tensor:
        """Corrected cosines (R, h, w), stretched to 0 .. 1 where asked."""
        words = self.clip.encode_text(asked.rows)
        if self.settings.redundant == "empty":
            maps = compute_cosine_clues(encoding.tokens, words, self.clip.encode_null_text()).values
        else:
            maps = compute_similarity(encoding.tokens, words)
        if self.settings.redundant == "classes":
            maps = score_class_set(maps, words @ require_part(encoding.whole, "the whole image's feature"))
        return stretch_to_unit(maps) if self.settings.stretch else maps


def score_class_set(cosines: Tensor, whole: Tensor) -> Tensor:
    """Take from cosines (R, h, w) what the names share, weighed by the whole image's cosines ``whole`` (R).

    w = p / mean(p) with p = softmax(2 whole); the value is w F . T less its mean over the names: one product, where the
    released code holds a (cells, R, D) array.  Raises InputError for a single name, which shares all with itself.

    >>> import torch
    >>> score_class_set(torch.tensor([[[0.75]], [[0.25]]]), torch.zeros(2)).flatten().tolist()
    [0.25, -0.25]
    """
    if len(cosines) < 2:
        raise InputError("what all names share can be taken away from two or more, got one name; or set redundant to 'empty'")
    share = (_WHOLE_SCALE * whole).softmax(0)
    weighed = cosines * (share / share.mean())[:, None, None]
    return weighed - weighed.mean(0, keepdim=True)
