"""What the rooms ask of each other, as small protocols; anything that fits may be passed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from annofree.structures import Detections, FeatureMap, Image, Vocabulary

__all__ = ["Embedding", "Masker", "PromptedMasks", "Segmenter", "VisionLanguage"]


class VisionLanguage(Protocol):
    """A CLIP whose inner maps can be read.  All features that meet text are unit vectors."""

    @property
    def dimension(self) -> int:
        """D, the length of the features that meet text."""
        ...

    @property
    def provenance(self) -> dict[str, Any]:
        """Name, hashes, licence and supervision tier of the weights."""
        ...

    def remarks(self, vocabulary: Vocabulary) -> list[str]:
        """What a person should know before trusting this model with these names."""
        ...

    def words(self, vocabulary: Vocabulary) -> Tensor:
        """One unit text feature a class, (K, D)."""
        ...

    def neutral(self) -> Tensor:
        """The text feature that says nothing in particular, (D)."""
        ...

    def presence(self, whole: Tensor, tokens: FeatureMap, words: Tensor) -> Tensor:
        """How likely each class is to be in a picture at all, (K) in 0 .. 1, each class by itself."""
        ...

    def whole(self, images: Sequence[Image]) -> Tensor:
        """One unit feature an image, (B, D)."""
        ...

    def dense(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Text-aligned unit features of each cell, (D, h, w) an image."""
        ...

    def boundaries(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Intermediate features that change from object to object (conv4_x of a ResNet), (C, h, w) an image."""
        ...

    def crops(self, image: Image, boxes: npt.NDArray[np.float32], *, pooled: bool) -> Tensor:
        """One unit feature a box (N, 4) px, (N, D): of the crop itself, or pooled from one pass by RoIAlign."""
        ...


@dataclass(frozen=True, eq=False)
class Embedding:
    """What a masker keeps of an image between prompts: its ``size`` (H, W) and its own ``state``."""

    size: tuple[int, int]
    state: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class PromptedMasks:
    """Answers to P prompts: ``masks`` (P, M, H, W) bool and ``quality`` (P, M), the masker's own guess of each IoU."""

    masks: Tensor
    quality: Tensor


class Masker(Protocol):
    """A promptable segmenter: it draws the thing that a box or a point means, and does not name it."""

    @property
    def provenance(self) -> dict[str, Any]:
        """Name, hashes, licence and supervision tier of the weights."""
        ...

    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        """Encode images once, for any number of prompts."""
        ...

    def draw(
        self,
        embedding: Embedding,
        *,
        boxes: npt.NDArray[np.float32] | None = None,
        points: npt.NDArray[np.float32] | None = None,
        many: bool = False,
    ) -> PromptedMasks:
        """Draw one mask a prompt, or three with ``many``; boxes (P, 4) and points (P, 2) x y in px of the image."""
        ...


@runtime_checkable
class Segmenter(Protocol):
    """A method: all that needs no class name in ``encode``, the rest, cheaply, in ``instances``."""

    @property
    def provenance(self) -> dict[str, Any]:
        """Models, hashes, tiers and settings, as they are written beside results."""
        ...

    def remarks(self, classes: Any) -> list[str]:
        """What a person should know before trusting the answer for these names."""
        ...

    def encode(self, images: Sequence[Image]) -> list[Any]:
        """One encoding an image, in order."""
        ...

    def instances(self, image: Any, classes: Any) -> Detections:
        """Find the instances of some classes in an image or in an encoding of it."""
        ...
