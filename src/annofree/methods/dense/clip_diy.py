"""CLIP-DIY (Wysoczanska et al., WACV 2024): CLIP on many crops says what, an objectness map says where.

    image -> canvas -> windows at several scales -> CLIP -> one feature a window ---> likeness to each name, drawn
            -> objectness, at the image's own resolution -----------------------> x   and averaged over scales -> best name

The windows' features and the objectness need no name: another class list costs one product of a few dozen features.
K classes, R rows scored (background words among them), D embedding, S scales, kh kw windows of a scale, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.clues.background import Asked, Background, with_negatives
from annofree.clues.crops import Layout, Placement, Tiling, average_tiles, cut, lay_tilings
from annofree.clues.objectness import InstanceObjectness
from annofree.detections.painting import Draw, compute_confidence, find_strongest
from annofree.errors import InputError, MissingError, build_unknown_error
from annofree.features.saliency import FoundBackground, FoundObjectness, TokenCutMap
from annofree.methods.dense.label_instances import RegionSettings, find_label_instances
from annofree.methods.variants import choose_settings
from annofree.ops.fixed_bilinear import resize_levels
from annofree.ops.grids import fit_size, resize_maps, resize_nearest
from annofree.protocols import Objectness, Segmenter, SelfSupervised, VisionLanguage
from annofree.structures import Classes, Detections, Image, LabelMap, Vocabulary

__all__ = ["OBJECTNESS", "VARIANTS", "ClipDiy", "ClipDiyEncoding", "ClipDiySettings", "Parts", "build_objectness"]

_CROPS_AT_ONCE = 256


@dataclass(frozen=True)
class ClipDiySettings(RegionSettings):
    """What may be chosen.

    There is no logit scale: the released code multiplies plain cosines, and so does this.  Raises InputError for a canvas or a
    side of less than 1 px.
    """

    # px that windows are cut from, of both sides where ``squash``, else of the short side; 448 in the paper
    canvas: int = 448
    # whether both sides become the canvas: aspect lost, bilinear without antialiasing, in OpenCV's whole numbers, as released;
    # else the short side does, bicubic with antialiasing
    squash: bool = False
    # windows of 1 / 2 ** s of the canvas; 0 is the whole image
    scales: tuple[int, ...] = (0, 1, 2)
    # windows that overlap by half (``sliding``, released code) or do not (``partition``, paper)
    layout: Layout = "sliding"
    # whether a scale's values are drawn as if its windows ``tiled`` the canvas (released code) or at their own ``centres``
    # (ours: overlapping windows do not tile it)
    placement: Placement = "centres"
    # whether names are chosen on the ``canvas`` and enlarged (released code), or on the pixels of the ``image`` (ours: the
    # objectness has the edges, and keeps them)
    paint: Literal["canvas", "image"] = "image"
    # px of the squares that windows are cut to; None for those that the CLIP looks at
    side: int | None = None
    # how pixels that are no thing are told; its words are weighed by 1 - objectness, the rest by objectness
    background: Background = field(default_factory=Background)
    # the set of prompts, None for the model's own; released: "a photo of a {name}", background too, no full stop, never "an"
    prompts: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(self.scales))
        if min(self.canvas, self.side or 1) < 1:
            raise InputError(f"expected a canvas and a side of at least 1 px, got {self.canvas} and {self.side}")


VARIANTS: Mapping[str, ClipDiySettings] = MappingProxyType(
    {
        "default": ClipDiySettings(),
        "paper": ClipDiySettings(layout="partition", placement="tiled", paint="canvas", prompts="clip-diy"),
        "official": ClipDiySettings(canvas=256, squash=True, placement="tiled", paint="canvas", prompts="clip-diy"),
    }
)


@dataclass(frozen=True, eq=False)
class ClipDiyEncoding:
    """All of an image that needs no class name.

    ``size`` (H, W); ``tiles`` (S) the windows; ``crops`` (S) their unit features, (kh, kw, D) a scale; ``objectness`` (H, W).
    """

    size: tuple[int, int]
    tiles: tuple[Tiling, ...]
    crops: tuple[Tensor, ...]
    objectness: Tensor | None


class ClipDiy:
    """Names in, a label map or its regions out, by a frozen CLIP and an objectness; without one the plain average decides."""

    def __init__(
        self, clip: VisionLanguage, objectness: Objectness | None = None, settings: ClipDiySettings | str = "default"
    ) -> None:
        self.settings = choose_settings("clip_diy", settings, VARIANTS)
        self.clip = clip.with_prompts(self.settings.prompts) if self.settings.prompts else clip
        self.objectness = objectness
        self.settings.require_own_masks()
        if self.settings.background.rule == "objectness" and objectness is None:
            raise InputError("the background rule 'objectness' needs an objectness source, and there is none; name one")

    @property
    def provenance(self) -> dict[str, Any]:
        """Method, settings, and the models with their hashes and tiers."""
        models = [self.clip.provenance, *([self.objectness.provenance] if self.objectness else [])]
        return {"method": "clip_diy", "settings": asdict(self.settings), "models": models}

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """Two of these on the same models can share an encoding when their keys are equal."""
        s = self.settings
        return "clip_diy", s.canvas, s.squash, s.scales, s.layout, s.side

    def remarks(self, classes: Classes) -> list[str]:
        """What a person should know before trusting the answer for these names."""
        return self.clip.remarks(self.settings.background.list_rows(classes).rows)

    def encode(self, images: Sequence[Image]) -> list[ClipDiyEncoding]:
        """Look at all windows of all images, many at a time, and find where things are; one encoding an image, in order."""
        if not images:
            return []
        tiles = [tuple(lay_tilings(self.compute_canvas_size(i), self.settings.scales, self.settings.layout)) for i in images]
        features = self._seen(images, tiles)
        crops = [tuple(next(features).view(*t.grid, -1) for t in of_one) for of_one in tiles]
        where: Sequence[Tensor | None] = self.objectness.predict_maps(images) if self.objectness else [None] * len(images)
        return [ClipDiyEncoding(i.size, t, c, w) for i, t, c, w in zip(images, tiles, crops, where, strict=True)]

    def semantic(self, image: Image | ClipDiyEncoding, classes: Classes) -> LabelMap:
        """Name every pixel of an image, or of an encoding of it."""
        asked = self.settings.background.list_rows(classes)
        encoding = self.encode([image])[0] if isinstance(image, Image) else image
        return self._painted(encoding, asked)[0]

    def instances(self, image: Image | ClipDiyEncoding, classes: Classes) -> Detections:
        """Take the regions of the label map for instances."""
        return self.verify(image, Vocabulary.of(classes), ())

    def verify(self, image: Image | ClipDiyEncoding, vocabulary: Vocabulary, distractors: Sequence[str]) -> Detections:
        """The regions of some names and of distractors, in this order, that compete for each pixel; the surest first."""
        rows = with_negatives(vocabulary, distractors)
        asked = self.settings.background.list_rows(rows)
        encoding = self.encode([image])[0] if isinstance(image, Image) else image
        labels, draw, values = self._painted(encoding, asked)
        size = (values.shape[-2], values.shape[-1])
        sure = compute_confidence(draw, len(asked.rows), size, values, self.settings.logit_scale)
        sure, values = (resize_nearest(m, encoding.size) for m in (sure, values))
        return find_label_instances(labels, rows, self.settings, sure, values)

    def _painted(self, encoding: ClipDiyEncoding, asked: Asked) -> tuple[LabelMap, Draw, Tensor]:
        """The label map; and what draws rows where names are chosen, with the value of the best one there."""
        size, where = self.place_objectness(encoding)
        grids = self.compute_similarity(encoding, asked.rows)
        draw = partial(self._drawn, grids, encoding, asked)
        painted = find_strongest(draw, len(asked.rows), size)
        best, values = (resize_nearest(m, encoding.size) for m in (painted.best, painted.values))
        where = None if where is None else resize_nearest(where, encoding.size)
        return self.settings.background.label_pixels(asked, best, values, where), draw, painted.values

    def compute_scores(self, image: Image | ClipDiyEncoding, classes: Classes) -> Tensor:
        """The fused map of each row that is scored, (R, H, W) at the size where names are chosen: large for many names."""
        asked = self.settings.background.list_rows(classes)
        encoding = self.encode([image])[0] if isinstance(image, Image) else image
        return self._drawn(self.compute_similarity(encoding, asked.rows), encoding, asked, slice(None))

    def compute_similarity(self, encoding: ClipDiyEncoding, rows: Vocabulary) -> list[Tensor]:
        """The cosine of each window with each row, (R, kh, kw) a scale: all that a class list costs, but for the drawing."""
        words = self.clip.encode_text(rows)
        return [torch.einsum("hwd,kd->khw", crops, words.to(crops)) for crops in encoding.crops]

    def compute_canvas_size(self, image: Image) -> tuple[int, int]:
        """(h, w) of the canvas of an image."""
        side = self.settings.canvas
        return (side, side) if self.settings.squash else fit_size(image.size, side, 1)

    def draw_canvas(self, image: Image, device: torch.device | str = "cpu") -> Tensor:
        """Draw an image on its canvas, (3, h, w) in 0 .. 1, whole gray levels."""
        size = self.compute_canvas_size(image)
        levels = resize_levels(image.pixels, size) if self.settings.squash else image.pixels
        pixels = torch.tensor(levels).to(device).permute(2, 0, 1)[None].float()
        if levels.shape[:2] == size:
            return pixels[0] / 255
        drawn = F.interpolate(pixels, size=size, align_corners=False, mode="bicubic", antialias=True)
        return drawn[0].round().clamp(0, 255) / 255

    def _seen(self, images: Sequence[Image], tiles: Sequence[tuple[Tiling, ...]]) -> Iterator[Tensor]:
        """Yield the features of the windows of each scale of each image, (kh * kw, D), in order; many windows at a time."""
        device = self.clip.encode_null_text().device
        waiting: list[Tensor] = []
        for image, of_one in zip(images, tiles, strict=True):
            canvas = self.draw_canvas(image, device)
            for tiling in of_one:
                waiting.append(cut(canvas, tiling, self.settings.side or self.clip.side))
                if sum(map(len, waiting)) >= _CROPS_AT_ONCE:
                    yield from self._looked_at(waiting)
                    waiting = []
        yield from self._looked_at(waiting)

    def _looked_at(self, groups: list[Tensor]) -> Iterator[Tensor]:
        if groups:
            yield from torch.split(self.clip.encode_squares(torch.cat(groups)), [len(g) for g in groups])

    def place_objectness(self, encoding: ClipDiyEncoding) -> tuple[tuple[int, int], Tensor | None]:
        """Return the size (H, W) where names are chosen, and the objectness there."""
        size = encoding.size if self.settings.paint == "image" else encoding.tiles[0].size
        return size, None if encoding.objectness is None else resize_maps(encoding.objectness[None], size)[0]

    def _drawn(self, grids: list[Tensor], encoding: ClipDiyEncoding, asked: Asked, part: slice) -> Tensor:
        """Draw a part of the rows where names are chosen, and weigh them by the objectness, (k, H, W)."""
        size, where = self.place_objectness(encoding)
        maps = average_tiles([g[part] for g in grids], encoding.tiles, size, self.settings.placement)
        if where is None:
            return maps
        things = where.to(maps)
        return maps * torch.where(asked.is_background[part, None, None].to(maps.device), 1 - things, things)


@dataclass(frozen=True, eq=False)
class Parts:
    """What objectness may be made of."""

    # a self-supervised ViT, for FOUND and TokenCut
    dino: SelfSupervised | None = None
    # the file of FOUND's head
    head: Path | None = None
    # a method whose instances are the foreground
    segmenter: Segmenter | None = None
    # what that method is asked for
    classes: Classes = "object"

    def require(self, source: str, part: str) -> Any:
        """Return a part; raises MissingError where it is not there."""
        if getattr(self, part) is None:
            raise MissingError(f"the objectness source {source!r} needs a {part}, and none was given")
        return getattr(self, part)


OBJECTNESS: Mapping[str, Callable[[Parts], Objectness | None]] = MappingProxyType(
    {
        "found": lambda p: FoundObjectness(p.require("found", "dino"), p.require("found", "head")),
        "found-bkg": lambda p: FoundBackground(p.require("found-bkg", "dino")),
        "tokencut": lambda p: TokenCutMap(p.require("tokencut", "dino")),
        "maskcut": lambda p: InstanceObjectness(p.require("maskcut", "segmenter"), "object"),
        "cutler": lambda p: InstanceObjectness(p.require("cutler", "segmenter"), p.classes),
        "instances": lambda p: InstanceObjectness(p.require("instances", "segmenter"), p.classes),
        "none": lambda p: None,
    }
)
"""Sources of objectness by name; ``none`` is none."""


def build_objectness(name: str, parts: Parts) -> Objectness | None:
    """Make a source of objectness; raises InputError for an unknown name, MissingError where a part is not there.

    >>> build_objectness("none", Parts()) is None
    True
    """
    if name not in OBJECTNESS:
        raise build_unknown_error("objectness source", name, OBJECTNESS)
    return OBJECTNESS[name](parts)
