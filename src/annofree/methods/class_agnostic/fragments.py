"""Zip's boundaries without names: all compact fragments of an image, each drawn by SAM (its appendix F, "discovery first").

    image -> conv4_x -> K-means -> fragments -> those that fill their box -> box -> SAM -> its center -> SAM -> each once

Named afterwards (``annofree name``), this is what Zip is compared with: there names choose fragments before anything is drawn.
N fragments, H W pixels.  The score is SAM's own guess of a mask's IoU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from annofree.detections.merging import select_compact
from annofree.detections.nms import suppress
from annofree.detections.prompting import Prompting, SecondPrompt, draw_masks
from annofree.fragments.clusters import Seeding, extract_fragments
from annofree.methods.class_agnostic.base import ClassAgnostic
from annofree.methods.variants import choose_settings
from annofree.ops.grids import resize_nearest
from annofree.ops.regions import Connectivity
from annofree.protocols import Embedding, Masker, VisionLanguage
from annofree.structures import Detections, Fragments, Image

__all__ = ["VARIANTS", "FragmentsSettings", "ZipFragments"]


@dataclass(frozen=True)
class FragmentsSettings:
    """What may be chosen; all but the last two as Zip has it."""

    # where K-means starts
    seeding: Seeding = field(default_factory=lambda: Seeding("semantic"))
    # of fragments: 8 (paper) or 4 (demo) neighbors of a cell
    connectivity: Connectivity = 8
    # most area of a fragment's box over its own: thin boundaries have more
    max_box_ratio: float = 3.0
    # cells that a fragment has at least
    min_cells: int = 0
    # SAM by the coarse box in ``one-step``, then by the refined box's center in ``two-step``, or ``none``
    prompting: Prompting = "two-step"
    # whether that second step sees the ``point`` alone
    second: SecondPrompt = "point"
    # mask IoU above which the weaker of two goes: several fragments of a thing may each make SAM draw the whole; 1 keeps all
    within: float = 0.5
    # detections per image, the strongest
    most: int = 100


VARIANTS: Mapping[str, FragmentsSettings] = MappingProxyType({"default": FragmentsSettings()})


class ZipFragments(ClassAgnostic):
    """Everything that ends where a ``clip``'s features change, drawn by ``sam``; raises InputError for an unknown variant."""

    name = "fragments"

    def __init__(self, clip: VisionLanguage, sam: Masker, settings: FragmentsSettings | str = "default") -> None:
        self.settings = choose_settings(self.name, settings, VARIANTS)
        self.clip, self.sam = clip, sam

    @property
    def provenance(self) -> dict[str, Any]:
        """Method, settings, CLIP and SAM."""
        models = [self.clip.provenance, self.sam.provenance]
        return {"method": self.name, "settings": asdict(self.settings), "models": models}

    def discover(self, images: Sequence[Image]) -> list[Detections]:
        """The compact fragments of each image as SAM draws them, by falling quality."""
        if not images:
            return []
        seeding, connectivity = self.settings.seeding, self.settings.connectivity
        pairs = zip(self.clip.encode_boundaries(images), self.clip.encode_dense(images), strict=True)
        pieces = [extract_fragments(boundaries, tokens, seeding, connectivity) for boundaries, tokens in pairs]
        return [self._draw(*each) for each in zip(images, pieces, self.sam.embed(images), strict=True)]

    def _draw(self, image: Image, pieces: Fragments, embedding: Embedding) -> Detections:
        s = self.settings
        kept = torch.nonzero(select_compact(pieces, s.max_box_ratio, s.min_cells))[:, 0]
        labels = resize_nearest(pieces.labels, image.size)
        cells = (labels[None] == (kept + 1)[:, None, None]).cpu().numpy()
        masks, quality = cells, np.ones(len(cells), np.float32)
        if s.prompting != "none" and len(cells):
            down, right = (full / n for full, n in zip(image.size, pieces.labels.shape, strict=True))
            boxes = (
                pieces.boxes[kept].float() * pieces.boxes.new_tensor([right, down, right, down], dtype=torch.float32)
            ).cpu()
            drawn, quality = draw_masks(self.sam, embedding, boxes.numpy(), s.prompting, s.second)
            masks = np.where(np.any(drawn, axis=(1, 2))[:, None, None], drawn, cells)
        found = Detections.from_masks(masks, [0] * len(masks), quality.tolist(), ("object",))
        return suppress(found, within=s.within)[: s.most]
