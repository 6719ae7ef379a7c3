"""Plain patch cosine: CLIP's own last tokens meet the names, as they are.  The weakest baseline that still is CLIP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor

from annofree.clues.background import Asked
from annofree.methods.dense.dense_clip import DenseClip, DenseEncoding, DenseSettings, compute_similarity
from annofree.protocols import DensePath

__all__ = ["VARIANTS", "PatchCosine", "PatchCosineSettings"]


@dataclass(frozen=True)
class PatchCosineSettings(DenseSettings):
    """What may be chosen: only what the family shares."""


VARIANTS: Mapping[str, PatchCosineSettings] = MappingProxyType(
    {"default": PatchCosineSettings(), "pamr": replace(PatchCosineSettings(), refine="pamr")}
)


class PatchCosine(DenseClip[PatchCosineSettings]):
    """Names in, a label map or its regions out, by a frozen CLIP alone."""

    name: ClassVar[str] = "patch_cosine"
    variants: ClassVar[Mapping[str, Any]] = VARIANTS

    @property
    def path(self) -> DensePath:
        """The tower's own last tokens."""
        return "attention"

    def compute_scores(self, encoding: DenseEncoding, asked: Asked) -> Tensor:
        """Cosines (R, h, w)."""
        return compute_similarity(encoding.tokens, self.clip.encode_text(asked.rows))
