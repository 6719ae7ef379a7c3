"""SAM's "segment everything": a grid of points, all masks that are sure, each thing once; no name and no CLIP.

    image and its crops -> SAM -> grid of points -> sure masks -> box NMS

N masks, H W pixels.  The score is SAM's own guess of a mask's IoU; the order is by that guess as it is, which may be above 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from annofree.detections.everything import Candidates, Crop, draw_candidates, list_crops, remove_small_regions
from annofree.detections.proposals import Grid, build_point_grid
from annofree.errors import InputError
from annofree.methods.class_agnostic.base import ClassAgnostic
from annofree.methods.variants import choose_settings
from annofree.ops.rle import compute_rle_boxes
from annofree.protocols import Embedding, Masker, Sureness
from annofree.structures import Detections, Image

__all__ = ["VARIANTS", "SamEverything", "SamEverythingSettings"]


@dataclass(frozen=True)
class SamEverythingSettings:
    """What may be chosen; as it stands, what SAM's own generator of masks does."""

    # points a side of the grid
    points: int = 32
    # at the centers of its cells, or from border to border (the paper of Zip)
    grid: Grid = "centers"
    # which of a point's masks compete, and what they must reach
    sure: Sureness = field(default_factory=Sureness)
    # box IoU above which the mask of the lower guess is dropped, within a crop; 1 keeps all
    nms: float = 0.7
    # layers of crops that are looked at beside the image, 4 crops in the first, 16 in the second; each runs SAM's encoder
    crop_layers: int = 0
    # the part of the image's shorter side that neighbors of the first layer share
    crop_overlap: float = 512 / 1500
    # by which the points a side are divided from a layer to the next
    crop_fewer: int = 1
    # box IoU above which the mask of the larger crop is dropped; 1 keeps all
    crop_nms: float = 0.7
    # px of the holes that are filled and the islands that are dropped, if smaller; 0 leaves masks as they are
    min_region: int = 0

    def __post_init__(self) -> None:
        if self.points < 1 or self.crop_layers < 0 or self.crop_fewer < 1 or not 0 <= self.crop_overlap < 1:
            raise InputError(
                "expected at least 1 point a side, 0 crop layers or more, crop_fewer of at least 1 and crop_overlap from 0 to "
                f"below 1, got {self.points}, {self.crop_layers}, {self.crop_fewer} and {self.crop_overlap}"
            )


_NO_FILTER = Sureness("first", quality=0, stability=0)
_ANY_SAM = Sureness(quality=0, stability=0.7)

VARIANTS: Mapping[str, SamEverythingSettings] = MappingProxyType(
    {
        "default": SamEverythingSettings(),
        "official": SamEverythingSettings(),
        "paper": SamEverythingSettings(grid="borders", sure=_NO_FILTER, nms=1),
        "paper-nms": SamEverythingSettings(grid="borders", sure=_NO_FILTER),
        "fast": SamEverythingSettings(points=16, sure=_ANY_SAM),
    }
)
"""``official`` is SAM's released generator.  Its thresholds are made for SAM ViT-H: guesses of another SAM lie elsewhere, those
of the bundled one all below, so that nothing is found.  ``default`` is the same, but for what was chosen with the models of a
preset (``methods/tuning.py``).  ``fast`` asks a quarter of its points, has no threshold of guesses, which any SAM can be given,
and the stability that had the best AP with the bundled one on 24 emoji scenes of seed 515 (``benchmarks/choose_sureness.py``).
``paper`` is the parallel form in the paper of Zip, with its duplicates, and ``paper-nms`` the same without them."""


class SamEverything(ClassAgnostic):
    """Everything that ``sam`` draws for a grid of points; raises InputError for an unknown variant."""

    name = "sam_everything"

    def __init__(self, sam: Masker, settings: SamEverythingSettings | str = "default") -> None:
        self.settings = choose_settings(self.name, settings, VARIANTS)
        self.sam = sam

    @property
    def provenance(self) -> dict[str, Any]:
        """Method, settings and SAM."""
        return {"method": self.name, "settings": asdict(self.settings), "models": [self.sam.provenance]}

    def discover(self, images: Sequence[Image]) -> list[Detections]:
        """All things of each image, by falling quality; the images are embedded together, crops one by one."""
        return [self._discover(*each) for each in zip(images, self.sam.embed(images), strict=True)] if images else []

    def _discover(self, image: Image, whole: Embedding) -> Detections:
        s = self.settings
        crops = list_crops(image.size, s.crop_layers, s.crop_overlap)
        parts = [self._draw(image, crop, whole if crop.layer == 0 else None) for crop in crops]
        found = Candidates.joined(parts)
        if len(crops) > 1:
            areas = [np.float32(1) / np.float32(crop.size[0] * crop.size[1]) for crop in crops]
            found = found.suppress(np.repeat(areas, [len(part) for part in parts]).astype(np.float32), s.crop_nms)
        if s.min_region:
            found = remove_small_regions(found, s.min_region, max(s.nms, s.crop_nms))
        return _answer(found[np.argsort(-found.quality, kind="stable")], image.size)

    def _draw(self, image: Image, crop: Crop, embedding: Embedding | None) -> Candidates:
        """What is found in one crop, each once."""
        s = self.settings
        if embedding is None:
            (embedding,) = self.sam.embed([Image(np.ascontiguousarray(image.pixels[crop.window]), image.id)])
        points = build_point_grid(max(1, int(s.points / s.crop_fewer**crop.layer)), crop.size, s.grid)
        found = draw_candidates(self.sam, embedding, points, s.sure, crop, image.size).drop_cut(crop, image.size)
        return found.suppress(found.quality, s.nms)


def _answer(found: Candidates, size: tuple[int, int]) -> Detections:
    scores = found.quality.clip(0, 1).astype(np.float32)
    return Detections(size, ("object",), np.zeros(len(found), np.int64), scores, compute_rle_boxes(found.rles), found.rles)
