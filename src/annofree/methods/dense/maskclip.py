"""MaskCLIP (Zhou et al., ECCV 2022): the values of CLIP's last attention, each cell by itself, meet the names.

The path past attention is ``value`` (value and output projections alone, as in a ResNet's pool) or ``value+mlp`` (the released
ViT, which keeps the residual and the MLP around them).  R rows scored, h w cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.clues.background import Asked, Background
from annofree.detections.painting import Draw
from annofree.errors import InputError
from annofree.features.towers.released import fit_released
from annofree.methods.dense.dense_clip import DenseClip, DenseEncoding, DenseSettings, compute_similarity, require_part
from annofree.ops.grids import resize_maps
from annofree.protocols import DensePath, ReleasedReader, VisionLanguage
from annofree.structures import FeatureMap, Image

__all__ = ["VARIANTS", "Keyed", "MaskClip", "MaskClipSettings", "denoise_maps", "smooth_maps"]

_DENOISED = -100.0
_REFINE_SCALE = 100.0  # of the softmax in both refinements, as released


@runtime_checkable
class Keyed(Protocol):
    """A CLIP that also gives the keys of its last attention."""

    def extract_keys(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Keys of the last block on the grid of the dense features, (C, h, w) per image."""
        ...


@dataclass(frozen=True)
class MaskClipSettings(DenseSettings):
    """What may be chosen, beside what the family shares."""

    # ``value+mlp`` as the released code for ViTs, ``value`` as that for ResNets; None takes the first the CLIP has
    path: Literal["value", "value+mlp"] | None = None
    # how the CLIP sees an image: as it was trained to (``trained``), or as the released code has it (``released``: GELU and an
    # eps of 1e-6 in a ViT, ImageNet's statistics, a short side of 512 px, zeros to whole patches, maps enlarged in two steps)
    reading: Literal["trained", "released"] = "trained"
    # prompt denoising: a class whose highest probability over all cells is under this is dropped; 0.5 as released, where it is
    # on, 0 drops none. The background is never dropped (ours: the released code has none)
    denoise: float = 0.0
    # key smoothing: cells less sure than ``smooth_below`` become the sum of all cells' probabilities, weighed by how alike
    # their keys are; keys are made unit along their ``channels`` (a cosine) or along the ``tokens`` (released code). Off in the
    # released settings, as is ``denoise``
    smooth: Literal["none", "channels", "tokens"] = "none"
    # the probability, in 0 .. 1, under which a cell is smoothed; 1 smooths all
    smooth_below: float = 1.0


_PLAIN = MaskClipSettings()
VARIANTS: Mapping[str, MaskClipSettings] = MappingProxyType(
    {
        "default": _PLAIN,
        "official": replace(_PLAIN, reading="released", background=Background("none")),
        "denoised": replace(_PLAIN, denoise=0.5),
        "smoothed": replace(_PLAIN, denoise=0.5, smooth="tokens"),
        "pamr": replace(_PLAIN, refine="pamr"),
        "zutis": replace(_PLAIN, instances="classes"),
    }
)


class MaskClip(DenseClip[MaskClipSettings]):
    """Names in, a label map or its regions out, by a frozen CLIP alone.

    Raises InputError where keys are asked for and the CLIP gives none.
    """

    name: ClassVar[str] = "maskclip"
    variants: ClassVar[Mapping[str, Any]] = VARIANTS

    def __init__(self, clip: VisionLanguage, settings: MaskClipSettings | str = "default") -> None:
        super().__init__(clip, settings)
        if self.settings.reading == "released":
            if not isinstance(clip, ReleasedReader):
                raise InputError(
                    "reading 'released' needs a CLIP that can be read as MaskCLIP was released, which this one cannot; set it "
                    "to 'trained'"
                )
            self.clip = clip.with_released_reading()

    @property
    def path(self) -> DensePath:
        """The value path that the settings name, or the CLIP has."""
        return self.settings.path or ("value+mlp" if "value+mlp" in self.clip.paths else "value")

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """Two of these on the same model can share an encoding when their keys are equal."""
        return (*super().encoding_key, self.settings.smooth != "none", self.settings.reading)

    def encode(self, images: Sequence[Image]) -> list[DenseEncoding]:
        """Read the values of each image, and the keys where they smooth."""
        encodings = super().encode(images)
        if self.settings.smooth == "none" or not encodings:
            return encodings
        if not isinstance(self.clip, Keyed):
            raise InputError("key smoothing needs a CLIP that gives its last keys, as a ViT does; this one has none")
        return [replace(e, keys=k) for e, k in zip(encodings, self.clip.extract_keys(images), strict=True)]

    def compute_scores(self, encoding: DenseEncoding, asked: Asked) -> Tensor:
        """Cosines (R, h, w); probabilities and sums of them where they are smoothed."""
        s, maps = self.settings, compute_similarity(encoding.tokens, self.clip.encode_text(asked.rows))
        if s.denoise > 0:
            maps = denoise_maps(maps, s.denoise, asked.is_background.to(maps.device))
        if s.smooth != "none":
            maps = smooth_maps(maps, require_part(encoding.keys, "the keys").values, s.smooth_below, s.smooth)
        return maps

    def _drawing(self, encoding: DenseEncoding, asked: Asked) -> Draw:
        """The family's; released code enlarges to the resized image first, whose padding it stretches over the image."""
        if self.settings.reading == "trained" or self.settings.refine != "none":
            return super()._drawing(encoding, asked)
        maps, middle = self.compute_scores(encoding, asked), fit_released(encoding.size)
        return lambda part: resize_maps(resize_maps(maps[part], middle), encoding.size)


def denoise_maps(maps: Tensor, threshold: float, spared: Tensor) -> Tensor:
    """Give the rows of cosines (R, h, w) that are nowhere likelier than ``threshold`` -100, but not the ``spared`` (R).

    Where that would leave no row at all, none is dropped.

    >>> maps = torch.tensor([[[0.3, 0.1]], [[0.1, 0.3]], [[0.2, 0.2]]])
    >>> denoise_maps(maps, 0.5, torch.zeros(3, dtype=torch.bool))[:, 0, 0].tolist()[2]
    -100.0
    """
    most = (maps * _REFINE_SCALE).softmax(0).flatten(1).amax(1)
    dropped = (most < threshold) & ~spared
    return maps if dropped.all() else maps.masked_fill(dropped[:, None, None], _DENOISED)


def smooth_maps(maps: Tensor, keys: Tensor, below: float, along: Literal["channels", "tokens"]) -> Tensor:
    """Replace cells of cosines (R, h, w) that are less sure than ``below`` by what cells with like ``keys`` (C, h, w) say.

    All become probabilities.  An unsure cell i is then the sum over all cells j of (k_i . k_j) p_j, and that sum is not
    normalized, as released.
    """
    if maps.shape[1:] != keys.shape[1:]:
        raise InputError(f"expected keys on the grid of the cells, {tuple(maps.shape[1:])}, got {tuple(keys.shape[1:])}")
    shares = (maps * _REFINE_SCALE).softmax(0).flatten(1)
    units = F.normalize(keys.flatten(1).to(maps), dim=0 if along == "channels" else 1)
    # (p K^T) K in this order: never an array of cells x cells
    summed = (shares @ units.T) @ units
    return torch.where(shares.amax(0) < below, summed, shares).view(maps.shape)
