"""Two CLIPs as one: one localizes the classes, the other gives object boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from annofree.errors import InputError
from annofree.protocols import DensePath, Described, MixableClip, RawClip, ReleasedReader, VisionLanguage
from annofree.structures import FeatureMap, Image, Vocabulary

__all__ = ["Boundaries", "PairedClip"]


class Boundaries(Described, Protocol):
    """What gives boundaries: another CLIP, or a layer of any network."""

    def encode_boundaries(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Features that change from object to object, (C, h, w) per image."""
        ...


class PairedClip:
    """A CLIP with the boundary features of another: Zip uses RN50x64 for boundaries and ViT-B/16 for the rest."""

    def __init__(self, clues: VisionLanguage, edges: Boundaries) -> None:
        self.clues, self.edges = clues, edges

    @property
    def dimension(self) -> int:
        """D, the dimension of the text-aligned features."""
        return self.clues.dimension

    @property
    def side(self) -> int:
        """Input resolution of the clues' CLIP in px."""
        return self.clues.side

    @property
    def paths(self) -> tuple[DensePath, ...]:
        """The supported paths of the clues' CLIP for dense features."""
        return self.clues.paths

    def with_prompts(self, templates: str) -> PairedClip:
        """Return a copy of this pair with other prompts."""
        return PairedClip(self.clues.with_prompts(templates), self.edges)

    @property
    def provenance(self) -> dict[str, Any]:
        """The provenance of the clues' CLIP, and under ``boundaries`` that of the other."""
        return self.clues.provenance | {"boundaries": self.edges.provenance}

    def remarks(self, vocabulary: Vocabulary) -> list[str]:
        """Warnings about these names; only the clues depend on them."""
        return self.clues.remarks(vocabulary)

    def count_new_texts(self, vocabulary: Vocabulary) -> int:
        """How many texts have to be encoded for these classes."""
        count = getattr(self.clues, "count_new_texts", None)
        return int(count(vocabulary)) if count else 0

    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        """One unit text feature per class, (K, D)."""
        return self.clues.encode_text(vocabulary)

    def encode_null_text(self) -> Tensor:
        """The neutral text feature (D)."""
        return self.clues.encode_null_text()

    def score_presence(self, whole: Tensor, tokens: FeatureMap, words: Tensor) -> Tensor:
        """How likely each class is to be in an image at all, (K) in 0 .. 1."""
        return self.clues.score_presence(whole, tokens, words)

    def compute_evidence(self, whole: Tensor, tokens: FeatureMap, words: Tensor) -> Tensor:
        """What speaks for each class, (K, 2): the whole image's cosine, and the mean clue of its best cells."""
        return self.clues.compute_evidence(whole, tokens, words)

    def encode_image(self, images: Sequence[Image]) -> Tensor:
        """One unit feature per image, (B, D)."""
        return self.clues.encode_image(images)

    def encode_dense(self, images: Sequence[Image], path: DensePath | None = None) -> list[FeatureMap]:
        """Text-aligned unit features of each cell, (D, h, w) per image."""
        return self.clues.encode_dense(images, path)

    def encode_raw(self, images: Sequence[Image], path: DensePath | None = None) -> list[tuple[FeatureMap, Tensor]]:
        """The same before they are made unit vectors, and class tokens (S, D); raises InputError where there are none."""
        if not isinstance(self.clues, RawClip):
            raise InputError("expected a CLIP that gives features before they are made unit vectors; this pair has none")
        return self.clues.encode_raw(images, path)

    def with_released_reading(self) -> PairedClip:
        """Return a copy of this pair whose clues' CLIP reads as MaskCLIP was released; raises InputError where that can't."""
        if not isinstance(self.clues, ReleasedReader):
            raise InputError("expected a CLIP that can be read as MaskCLIP was released; this pair has none")
        return PairedClip(self.clues.with_released_reading(), self.edges)

    def extract_values(self, images: Sequence[Image]) -> list[FeatureMap]:
        """The last attention's values (C, h, w) per image; raises InputError where the clues' CLIP gives none."""
        return self._mixable.extract_values(images)

    def align_values(self, cells: Tensor) -> Tensor:
        """Values (C, h, w), or means of them, as unit features (D, h, w) that meet text."""
        return self._mixable.align_values(cells)

    @property
    def _mixable(self) -> MixableClip:
        if not isinstance(self.clues, MixableClip):
            raise InputError("expected a CLIP that gives the values of its last attention; this pair has none")
        return self.clues

    def encode_boundaries(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Intermediate features of the other CLIP, (C, h, w) per image."""
        return self.edges.encode_boundaries(images)

    def encode_crops(self, image: Image, boxes: npt.NDArray[np.float32], *, pooled: bool) -> Tensor:
        """One unit feature per box (N, 4) px, (N, D)."""
        return self.clues.encode_crops(image, boxes, pooled=pooled)

    def encode_squares(self, pixels: Tensor) -> Tensor:
        """One unit feature a square image (N, 3, s, s) in 0 .. 1, (N, D)."""
        return self.clues.encode_squares(pixels)
