"""Instances of any method, ranked by where an objectness map says that things are: beside SAM's own score (Zip, App. B)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor

from annofree.methods.steps.encoding_key import find_encoding_key
from annofree.ops.rle import decode_rle
from annofree.protocols import Encoding, Objectness, Segmenter
from annofree.structures import Classes, Detections, Image

__all__ = ["Rank", "Ranked"]

Rank = Literal["own", "objectness", "both"]
"""By the method's own score, by the mean objectness in a mask, or by the geometric mean of both."""


@dataclass(frozen=True, eq=False)
class _RankedEncoding:
    own: Encoding
    map: Tensor


@dataclass(frozen=True)
class Ranked:
    """A ``method`` whose instances are scored by an ``objectness``: its mean in a mask, or that and their own score."""

    # what finds the instances
    method: Segmenter
    # where things are
    objectness: Objectness
    # by the objectness alone, or by both
    rank: Rank = "objectness"

    @property
    def provenance(self) -> dict[str, Any]:
        """That of the method, and the objectness."""
        return self.method.provenance | {"rank": self.rank, "ranked_by": self.objectness.provenance}

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """That of the method: how the map is used changes no encoding."""
        return ("ranked", *find_encoding_key(self.method))

    def remarks(self, classes: Classes) -> list[str]:
        """Those of the method."""
        return self.method.remarks(classes)

    def encode(self, images: Sequence[Image]) -> list[Encoding]:
        """What the method remembers of each image, and where things are."""
        if not images:
            return []
        pairs = zip(self.method.encode(images), self.objectness.predict_maps(images), strict=True)
        return [_RankedEncoding(own, found) for own, found in pairs]

    def instances(self, image: Image | Encoding, classes: Classes) -> Detections:
        """The same masks, by falling new score."""
        encoding = self.encode([image])[0] if isinstance(image, Image) else image
        found, places = self.method.instances(encoding.own, classes), encoding.map.cpu().numpy()
        means = np.array([places[decode_rle(rle)].mean() for rle in found.rles], np.float32).clip(0, 1)
        scores = np.sqrt(means * found.scores) if self.rank == "both" else means
        order = np.argsort(-scores, kind="stable")
        return replace(found[order], scores=scores[order].astype(np.float32))
