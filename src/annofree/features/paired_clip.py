"""Two CLIPs as one: one says where each name is, the other where objects end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from annofree.protocols import DensePath, VisionLanguage
from annofree.structures import FeatureMap, Image, Vocabulary

__all__ = ["PairedClip"]


class PairedClip:
    """A CLIP whose boundary features are another's: Zip takes RN50x64 for boundaries and ViT-B/16 for all that meets text."""

    def __init__(self, clues: VisionLanguage, edges: VisionLanguage) -> None:
        self.clues, self.edges = clues, edges

    @property
    def dimension(self) -> int:
        """D, the length of the features that meet text."""
        return self.clues.dimension

    @property
    def side(self) -> int:
        """Side in px of the squares that the clues' CLIP looks at."""
        return self.clues.side

    @property
    def paths(self) -> tuple[DensePath, ...]:
        """The ways in which the last layers of the clues' CLIP can be read as a map."""
        return self.clues.paths

    def prompted(self, templates: str) -> PairedClip:
        """Return this pair with another set of prompts."""
        return PairedClip(self.clues.prompted(templates), self.edges)

    @property
    def provenance(self) -> dict[str, Any]:
        """That of the CLIP that gives the clues, and under ``boundaries`` that of the other, whole."""
        return self.clues.provenance | {"boundaries": self.edges.provenance}

    def remarks(self, vocabulary: Vocabulary) -> list[str]:
        """What a person should know before trusting these names; only the clues depend on them."""
        return self.clues.remarks(vocabulary)

    def words(self, vocabulary: Vocabulary) -> Tensor:
        """One unit text feature a class, (K, D)."""
        return self.clues.words(vocabulary)

    def neutral(self) -> Tensor:
        """The text feature that says nothing in particular, (D)."""
        return self.clues.neutral()

    def presence(self, whole: Tensor, tokens: FeatureMap, words: Tensor) -> Tensor:
        """How likely each class is to be in a picture at all, (K) in 0 .. 1."""
        return self.clues.presence(whole, tokens, words)

    def evidence(self, whole: Tensor, tokens: FeatureMap, words: Tensor) -> Tensor:
        """What speaks for each class, (K, 2): the whole picture's cosine, and the mean clue of its best cells."""
        return self.clues.evidence(whole, tokens, words)

    def whole(self, images: Sequence[Image]) -> Tensor:
        """One unit feature an image, (B, D)."""
        return self.clues.whole(images)

    def dense(self, images: Sequence[Image], path: DensePath | None = None) -> list[FeatureMap]:
        """Text-aligned unit features of each cell, (D, h, w) an image."""
        return self.clues.dense(images, path)

    def boundaries(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Intermediate features of the other CLIP, (C, h, w) an image."""
        return self.edges.boundaries(images)

    def crops(self, image: Image, boxes: npt.NDArray[np.float32], *, pooled: bool) -> Tensor:
        """One unit feature a box (N, 4) px, (N, D)."""
        return self.clues.crops(image, boxes, pooled=pooled)

    def squares(self, pixels: Tensor) -> Tensor:
        """One unit feature a square picture (N, 3, s, s) in 0 .. 1, (N, D)."""
        return self.clues.squares(pixels)
