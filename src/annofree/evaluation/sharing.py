"""Models shared by many runs over the same picture: each map is computed once, whoever asks first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor

from annofree.features.clip import Clip
from annofree.features.sam import Sam
from annofree.protocols import Embedding
from annofree.structures import FeatureMap, Image

__all__ = ["SharedClip", "SharedSam"]

T = TypeVar("T")


class _Memory:
    """Answers kept for the pictures of the last call, by identity."""

    def __init__(self) -> None:
        self._image: Image | None = None
        self._kept: dict[str, Any] = {}

    def of(self, name: str, images: Sequence[Image], see: Callable[[Sequence[Image]], T]) -> T:
        if len(images) != 1:
            return see(images)
        if self._image is not images[0]:
            self._image, self._kept = images[0], {}
        if name not in self._kept:
            self._kept[name] = see(images)
        kept: T = self._kept[name]
        return kept


class SharedClip(Clip):
    """A CLIP that remembers what it last saw, one picture deep."""

    def __init__(self, clip: Clip) -> None:
        self.__dict__.update(clip.__dict__)
        self._clip, self._memory = clip, _Memory()

    @property
    def provenance(self) -> dict[str, Any]:
        """As the CLIP that is shared."""
        return self._clip.provenance

    def whole(self, images: Sequence[Image]) -> Tensor:
        """One unit feature an image, (B, D)."""
        return self._memory.of("whole", images, self._clip.whole)

    def dense(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Text-aligned unit features, (D, h, w) an image."""
        return self._memory.of("dense", images, self._clip.dense)

    def boundaries(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Intermediate features, (C, h, w) an image."""
        return self._memory.of("boundaries", images, self._clip.boundaries)


class SharedSam(Sam):
    """A SAM that remembers what it last saw, one picture deep."""

    def __init__(self, sam: Sam) -> None:
        self.__dict__.update(sam.__dict__)
        self._sam, self._memory = sam, _Memory()

    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        """One embedding an image."""
        return self._memory.of("embed", images, self._sam.embed)
