"""Instances of any method, each drawn anew by SAM: how Zip refines the methods that it is compared with (Table 1, App. I)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from annofree.detections.prompting import REDRAWING, Redraw, draw_masks
from annofree.methods.steps.encoding_key import find_encoding_key
from annofree.protocols import Embedding, Encoding, Masker, Segmenter, UniversalSegmenter
from annofree.structures import Classes, Detections, Image, LabelMap

__all__ = ["Redrawn", "RedrawnLabels"]


@dataclass(frozen=True, eq=False)
class _RedrawnEncoding:
    own: Encoding
    embedding: Embedding


@dataclass(frozen=True)
class Redrawn:
    """A ``method`` whose instances ``sam`` draws anew; the score is the geometric mean of the method's and SAM's guess."""

    # what finds the instances
    method: Segmenter
    # what draws them
    sam: Masker
    # by what it is prompted
    redraw: Redraw = "box"

    @property
    def provenance(self) -> dict[str, Any]:
        """That of the method, with SAM among its models."""
        own = self.method.provenance
        return own | {"redraw": self.redraw, "models": [*own.get("models", []), self.sam.provenance]}

    @property
    def parts(self) -> tuple[Any, ...]:
        """The methods whose encodings this one's are made of."""
        return (self.method,)

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """That of the method; another way to draw changes no encoding."""
        return ("redrawn", *find_encoding_key(self.method))

    def remarks(self, classes: Classes) -> list[str]:
        """Those of the method."""
        return self.method.remarks(classes)

    def encode(self, images: Sequence[Image]) -> list[_RedrawnEncoding]:
        """What the method and SAM remember of each image."""
        if not images:
            return []
        pairs = zip(self.method.encode(images), self.sam.embed(images), strict=True)
        return [_RedrawnEncoding(own, embedding) for own, embedding in pairs]

    def instances(self, image: Image | Encoding, classes: Classes) -> Detections:
        """The instances as SAM draws them, the highest score first; where it draws nothing, one stays as it was."""
        encoding = self.encode([image])[0] if isinstance(image, Image) else image
        found = self.method.instances(encoding.own, classes)
        if not len(found):
            return found
        drawn, quality = draw_masks(self.sam, encoding.embedding, found.boxes, REDRAWING[self.redraw], "box+point")
        masks = np.where(np.any(drawn, axis=(1, 2))[:, None, None], drawn, found.masks)
        return Detections.from_masks(masks, found.class_ids, np.sqrt(found.scores * quality), found.names)


@dataclass(frozen=True)
class RedrawnLabels(Redrawn):
    """One whose ``method`` makes label maps, too, which stay as they are; its settings say how its instances are drawn anew."""

    method: UniversalSegmenter

    @property
    def settings(self) -> Any:
        """Those of the method, and how SAM draws."""
        return replace(getattr(self.method, "settings"), redraw=self.redraw)  # noqa: B009 -- not every method has any

    @property
    def provenance(self) -> dict[str, Any]:
        """That of the method, whose settings say how SAM draws, with SAM among its models."""
        own = super().provenance
        return own | {"settings": own["settings"] | {"redraw": self.redraw}}

    def semantic(self, image: Image | Encoding, classes: Classes) -> LabelMap:
        """The label map of an image, or of an encoding of it, as the method makes it."""
        return self.method.semantic(image if isinstance(image, Image) else image.own, classes)
