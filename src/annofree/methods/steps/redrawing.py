"""Instances of any method, each drawn anew by SAM: how Zip refines the methods that it is compared with (Table 1, App. I)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from annofree.detections.prompting import REDRAWING, Redraw, draw_masks
from annofree.methods.steps.encoding_key import find_encoding_key
from annofree.protocols import Embedding, Encoding, Masker, Segmenter
from annofree.structures import Classes, Detections, Image

__all__ = ["Redrawn"]


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
    def encoding_key(self) -> tuple[Any, ...]:
        """That of the method; another way to draw changes no encoding."""
        return ("redrawn", *find_encoding_key(self.method))

    def remarks(self, classes: Classes) -> list[str]:
        """Those of the method."""
        return self.method.remarks(classes)

    def encode(self, images: Sequence[Image]) -> list[Encoding]:
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
