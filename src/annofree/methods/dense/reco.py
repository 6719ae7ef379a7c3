"""ReCo (Shin et al., NeurIPS 2022): what the images that a name retrieves have in common is looked for in other images.

    archive -> a reference for each name (``reco_references.py``)          once, without any training
    image -> cells of a DINO -> likeness to the reference, a sigmoid -.
         '-> cells of CLIP   -> likeness to the name, a sigmoid ------+-> product -> (refined) -> best name of each pixel

R rows scored, D embedding, h w cells, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.clues.background import Asked, Background
from annofree.detections.painting import Draw, resize_to_pixels
from annofree.methods.dense.dense_clip import (
    DenseClip,
    DenseEncoding,
    DenseSettings,
    compute_similarity,
    count_cells,
    require_part,
)
from annofree.methods.dense.reco_references import ReferenceArchive, ReferenceMaker, ReferenceSettings
from annofree.ops.grids import resize_maps
from annofree.ops.pamr import refine_maps
from annofree.protocols import DensePath, SelfSupervised, VisionLanguage
from annofree.structures import Classes, Image

__all__ = ["VARIANTS", "Reco", "RecoSettings"]


@dataclass(frozen=True)
class RecoSettings(DenseSettings):
    """What may be chosen, beside what the family shares."""

    # how pixels that are no thing are told: the paper has no background; a pixel whose best product of both likenesses is lower
    # than the threshold is one (ours); a word has no images, and no cell of the DINO counts as like it or unlike it
    background: Background = field(default_factory=lambda: Background("threshold"))
    # how references are made
    references: ReferenceSettings = field(default_factory=ReferenceSettings)
    # what CLIP's cosines are multiplied by, before their sigmoid
    guidance: float = 10.0
    # how the cells of CLIP are read; None takes ``value+mlp`` where the CLIP has it, else ``value``, as MaskCLIP does
    path: DensePath | None = None


_PLAIN = RecoSettings()
VARIANTS: Mapping[str, RecoSettings] = MappingProxyType(
    {
        "default": _PLAIN,
        "official": replace(_PLAIN, background=Background("none"), references=ReferenceSettings(blocks="released")),
        "pamr": replace(_PLAIN, refine="pamr"),
    }
)


class Reco(DenseClip[RecoSettings]):
    """Names of an ``archive`` in, a label map or its regions out, by a frozen CLIP and a frozen DINO.

    Raises InputError when it is asked for a name that the archive has not, or has fewer than two images of.
    """

    name: ClassVar[str] = "reco"
    variants: ClassVar[Mapping[str, Any]] = VARIANTS

    def __init__(
        self,
        clip: VisionLanguage,
        dino: SelfSupervised,
        archive: ReferenceArchive,
        settings: RecoSettings | str = "default",
    ) -> None:
        super().__init__(clip, settings)
        self.dino, self.archive = dino, archive
        self.references = ReferenceMaker(archive, clip, self.path, dino, self.settings.references)

    @property
    def path(self) -> DensePath:
        """The path that the settings name, or MaskCLIP's."""
        return self.settings.path or ("value+mlp" if "value+mlp" in self.clip.paths else "value")

    @property
    def provenance(self) -> dict[str, Any]:
        """Method, path, settings, the archive, and the models with their hashes and tiers."""
        held = super().provenance
        return {**held, "archive": self.archive.provenance, "models": [*held["models"], self.dino.provenance]}

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """Two of these on the same models can share an encoding when their keys are equal."""
        return (*super().encoding_key, self.settings.references.features)

    def remarks(self, classes: Classes) -> list[str]:
        """What a person should know before trusting the answer for these names; makes their references, if they are not there.

        Raises InputError for names that the archive has not.
        """
        asked = self.settings.background.list_rows(classes)
        self._list_references(asked)
        own = self.clip.remarks(asked.rows)
        lacking = [name for name in self.settings.references.contexts if self.archive.find_name([name]) is None]
        if lacking:
            own.append(f"the archive has no images of {', '.join(lacking)}, whose cells therefore weigh as much as any other")
        return own

    def encode(self, images: Sequence[Image]) -> list[DenseEncoding]:
        """Read the cells of CLIP and of the DINO; one encoding an image, in order."""
        encodings = super().encode(images)
        if not encodings:
            return []
        return [replace(e, keys=k) for e, k in zip(encodings, self.references.read_features(images), strict=True)]

    def compute_scores(self, encoding: DenseEncoding, asked: Asked) -> Tensor:
        """The product of both likenesses (R, h, w) in cells of ``refine_cell`` px that cover the image."""
        cells, draw = count_cells(encoding.size, self.settings.refine_cell), self._draw(encoding, asked)
        return torch.cat([resize_maps(draw(slice(row, row + 1)), cells) for row in range(len(asked.rows))])

    def _drawing(self, encoding: DenseEncoding, asked: Asked) -> Draw:
        """Each likeness is drawn on the pixels by itself, before the product."""
        if self.settings.refine == "none":
            return self._draw(encoding, asked)
        maps = refine_maps(require_part(encoding.image, "the image").pixels, self.compute_scores(encoding, asked))
        return lambda part: resize_to_pixels(maps[part], encoding.size)

    def _draw(self, encoding: DenseEncoding, asked: Asked) -> Draw:
        cells, tokens = require_part(encoding.keys, "the cells of a DINO"), encoding.tokens
        told = (self.settings.guidance * compute_similarity(tokens, self.clip.encode_text(asked.rows))).sigmoid()
        references = self._list_references(asked).to(cells.values)
        alike = torch.einsum("dhw,rd->rhw", F.normalize(cells.values, dim=0), references).sigmoid()
        if self.settings.background.rule == "threshold":  # a listed background is told by that alone
            alike = alike * (references != 0).any(1).to(alike)[:, None, None]
        return lambda part: (
            resize_to_pixels(told[part], encoding.size, tokens.window)
            * resize_to_pixels(alike[part], encoding.size, cells.window).to(told)
        )

    def _list_references(self, asked: Asked) -> Tensor:
        """The reference of each row (R, D); zeros for a background, which has no images: no cell is like or unlike it."""
        owners = zip(asked.owner, asked.rows.synonyms, strict=True)
        found = [None if owner == asked.background else self.references.find_reference(words) for owner, words in owners]
        known = next((reference for reference in found if reference is not None), torch.zeros(1))
        return torch.stack([torch.zeros_like(known) if reference is None else reference for reference in found])
