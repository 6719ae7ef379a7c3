"""Instances of any method that names every pixel: the connected regions of its label map.

A label map says no more than a name a pixel, so all regions have the score 1, in the order of their first pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from annofree.clues.background import with_negatives
from annofree.methods.dense.label_instances import RegionSettings, find_label_instances
from annofree.methods.steps.encoding_key import find_encoding_key
from annofree.protocols import Encoding, SemanticSegmenter
from annofree.structures import Classes, Detections, Image, LabelMap, Vocabulary

__all__ = ["LabelRegions"]


class LabelRegions:
    """The regions of at least ``min_area`` px of a ``method``'s label maps, pixels at corners being neighbors."""

    def __init__(self, method: SemanticSegmenter, min_area: int = 0) -> None:
        self.method, self.min_area = method, min_area

    @property
    def provenance(self) -> dict[str, Any]:
        """That of the method, and that its regions are taken."""
        return self.method.provenance | {"regions": {"min_area": self.min_area}}

    @property
    def parts(self) -> tuple[Any, ...]:
        """The methods whose encodings this one's are made of."""
        return (self.method,)

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """That of the method."""
        return find_encoding_key(self.method)

    def remarks(self, classes: Classes) -> list[str]:
        """Those of the method."""
        return self.method.remarks(classes)

    def encode(self, images: Sequence[Image]) -> list[Encoding]:
        """What the method remembers of each image."""
        return self.method.encode(images)

    def instances(self, image: Image | Encoding, classes: Classes) -> Detections:
        """The regions of each name, no more than 100 of them."""
        return self.verify(image, Vocabulary.of(classes), ())

    def verify(self, image: Image | Encoding, vocabulary: Vocabulary, distractors: Sequence[str]) -> Detections:
        """The regions of some names and of distractors, in this order, that compete for each pixel."""
        rows = with_negatives(vocabulary, distractors)
        return find_label_instances(self.semantic(image, rows), rows, RegionSettings(min_area=self.min_area))

    def semantic(self, image: Image | Encoding, classes: Classes) -> LabelMap:
        """The label map that the regions are of."""
        return self.method.semantic(image, classes)
