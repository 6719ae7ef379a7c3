"""What methods that read names straight off CLIP's own cells share: cells, scores, refinement, background, painting.

    image -> CLIP's last layers, read as a map -> likeness of each cell to each name -> (refined) -> best name of each pixel

A method of this family says which path it reads and how it turns likeness into scores: `maskclip`, `clip_surgery`,
`patch_cosine`, and with another network's likeness `proxy_clip` and `region_clip`.  K classes, R rows scored (background words
among them), D embedding, h w cells, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor

from annofree.clues.background import Asked, Background
from annofree.detections.painting import Draw, compute_confidence, find_strongest, resize_to_pixels
from annofree.errors import InputError
from annofree.methods.dense.label_instances import RegionSettings, find_label_instances
from annofree.methods.variants import choose_settings
from annofree.ops.grids import resize_maps
from annofree.ops.pamr import refine_maps
from annofree.protocols import DensePath, VisionLanguage
from annofree.structures import Classes, Detections, FeatureMap, Image, LabelMap, Vocabulary

__all__ = ["DenseClip", "DenseEncoding", "DenseSettings"]


@dataclass(frozen=True)
class DenseSettings(RegionSettings):
    """What may be chosen in each method of the family.

    Raises InputError for a cell of less than 1 px, and for a background that is told by an objectness, which is not there.
    """

    # how pixels that are no thing are told
    background: Background = field(default_factory=Background)
    # ``pamr`` draws the scores towards the image's edges, or ``none``
    refine: Literal["none", "pamr"] = "none"
    # px of an image that ``pamr`` makes one cell of (TCL: 4)
    refine_cell: int = 4

    def __post_init__(self) -> None:
        if self.refine_cell < 1:
            raise InputError(f"expected refine_cell of at least 1 px, got {self.refine_cell}")
        if self.background.rule == "objectness":
            raise InputError("the background rule 'objectness' needs an objectness source, which this method has not")


@dataclass(frozen=True, eq=False)
class DenseEncoding:
    """All of an image that needs no class name.

    ``size`` (H, W); ``tokens`` (D, h, w); ``whole`` (D) and ``keys`` (C, h, w) where the method reads them; the ``image``
    itself where scores are refined by it; ``regions`` (H, W) int32, the number of each pixel's region from 1, 0 outside of all.
    """

    size: tuple[int, int]
    tokens: FeatureMap
    whole: Tensor | None = None
    keys: FeatureMap | None = None
    image: Image | None = None
    regions: Tensor | None = None


S = TypeVar("S", bound=DenseSettings)
T = TypeVar("T")


class DenseClip(Generic[S]):
    """The flow; a method gives its ``name``, its ``variants``, its path and its ``scores``."""

    name: ClassVar[str]
    variants: ClassVar[Mapping[str, Any]]

    def __init__(self, clip: VisionLanguage, settings: S | str = "default") -> None:
        self.clip = clip
        self.settings: S = choose_settings(self.name, settings, self.variants)
        self.settings.require_own_masks()

    @property
    def path(self) -> DensePath:
        """How CLIP's last layers are read."""
        raise NotImplementedError

    def compute_scores(self, encoding: DenseEncoding, asked: Asked) -> Tensor:
        """How likely each cell is each row, (R, h, w)."""
        raise NotImplementedError

    @property
    def provenance(self) -> dict[str, Any]:
        """Method, path, settings, and the model with its hashes and tier."""
        return {
            "method": self.name,
            "path": self.path,
            "settings": asdict(self.settings),
            "models": [self.clip.provenance],
        }

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """Two of these on the same model can share an encoding when their keys are equal."""
        return self.name, self.path, self.settings.refine

    def remarks(self, classes: Classes) -> list[str]:
        """What a person should know before trusting the answer for these names."""
        return self.clip.remarks(self.settings.background.list_rows(classes).rows)

    def encode(self, images: Sequence[Image]) -> list[DenseEncoding]:
        """Read CLIP's cells of each image; one encoding an image, in order."""
        if not images:
            return []
        tokens, kept = self.clip.encode_dense(images, self.path), self.settings.refine != "none"
        return [DenseEncoding(i.size, t, image=i if kept else None) for i, t in zip(images, tokens, strict=True)]

    def semantic(self, image: Image | DenseEncoding, classes: Classes) -> LabelMap:
        """Name every pixel of an image, or of an encoding of it."""
        asked = self.settings.background.list_rows(classes)
        encoding = self.encode([image])[0] if isinstance(image, Image) else image
        best, values = find_strongest(self._drawing(encoding, asked), len(asked.rows), encoding.size)
        return self._labeled(encoding, asked, best, values)

    def instances(self, image: Image | DenseEncoding, classes: Classes) -> Detections:
        """Take the regions of the label map for instances."""
        s, vocabulary = self.settings, Vocabulary.of(classes)
        asked = s.background.list_rows(vocabulary)
        encoding = self.encode([image])[0] if isinstance(image, Image) else image
        draw, count = self._drawing(encoding, asked), len(asked.rows)
        best, values = find_strongest(draw, count, encoding.size)
        labels = self._labeled(encoding, asked, best, values)
        sure = compute_confidence(draw, count, encoding.size, values, s.logit_scale)
        return find_label_instances(labels, vocabulary, s, sure, values)

    def _labeled(self, encoding: DenseEncoding, asked: Asked, best: Tensor, values: Tensor) -> LabelMap:
        """The label map of the best rows (H, W) and their scores (H, W)."""
        return self.settings.background.label_pixels(asked, best, values)

    def _drawing(self, encoding: DenseEncoding, asked: Asked) -> Draw:
        """What draws a part of the rows on the pixels of the image, (k, H, W)."""
        maps, window = self._refined(encoding, self.compute_scores(encoding, asked))
        return lambda part: resize_to_pixels(maps[part], encoding.size, window)

    def _refined(self, encoding: DenseEncoding, maps: Tensor) -> tuple[Tensor, tuple[int, int] | None]:
        """Draw scores (R, h, w) towards the image's edges where asked; and the window that their cells then cover."""
        window = encoding.tokens.window
        if self.settings.refine == "none":
            return maps, window
        cell = self.settings.refine_cell
        finer = resize_maps(maps, count_cells(window or encoding.size, cell))
        height, width = count_cells(encoding.size, cell)
        return refine_maps(require_part(encoding.image, "the image").pixels, finer[:, :height, :width]), None


def count_cells(size: tuple[int, int], cell: int) -> tuple[int, int]:
    """How many cells of ``cell`` px cover an image of ``size`` (H, W), each way."""
    return -(-size[0] // cell), -(-size[1] // cell)


def compute_similarity(tokens: FeatureMap, words: Tensor) -> Tensor:
    """The cosine of each cell of ``tokens`` (D, h, w) with each of ``words`` (R, D), (R, h, w)."""
    return torch.einsum("dhw,kd->khw", tokens.values, words.to(tokens.values))


def require_part(part: T | None, what: str) -> T:
    """Return a part of an encoding; raises InputError where it was encoded with settings that do not need it."""
    if part is None:
        raise InputError(f"expected an encoding that holds {what}, got one made with other settings; encode with these")
    return part
