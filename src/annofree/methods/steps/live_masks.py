"""A method that tells no names apart, as the source of masks that CLIP names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from annofree.detectors.config import OBJECT
from annofree.methods.class_agnostic.stored_masks import ImageMasks
from annofree.methods.steps.encoding_key import find_encoding_key
from annofree.ops.rle import pack_counts
from annofree.protocols import Segmenter
from annofree.structures import Image

__all__ = ["LiveMasks"]


class LiveMasks:
    """What a ``method`` finds under the one name object, image by image."""

    def __init__(self, method: Segmenter) -> None:
        self.method = method

    @property
    def path(self) -> str:
        """The method, for messages."""
        return f"what {self.provenance['method']} finds"

    @property
    def key(self) -> tuple[Any, ...]:
        """That of the method's encodings."""
        return find_encoding_key(self.method)

    @property
    def provenance(self) -> dict[str, Any]:
        """That of the method."""
        return self.method.provenance

    @property
    def models(self) -> list[Mapping[str, Any]]:
        """The models of the method."""
        return list(self.provenance.get("models", []))

    @property
    def remarks(self) -> list[str]:
        """None: whatever it says of a name is not of those that CLIP gives."""
        return []

    def list_masks(self, images: Sequence[Image]) -> list[ImageMasks]:
        """The masks of each image with their scores, in order."""
        found = [self.method.instances(encoding, OBJECT) for encoding in self.method.encode(images)]
        return [ImageMasks(each.size, pack_counts(each.rles), tuple(each.scores.tolist())) for each in found]
