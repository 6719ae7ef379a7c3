"""ZUTIS (Shin et al., CVPRW 2023): a network trained on images that names retrieved proposes masks, and text names them.

    image -> network -> unit features that meet text --> best name of each pixel
                       '-> proposals of masks -> mean feature inside -> best name -> one thing, one mask

What needs no name is done once, in ``encode``.  Names need not be those that it was trained on.  K classes, R rows scored
(background words among them), Q proposals, N of them kept, D embedding, h w cells, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from annofree.clues.background import Asked, Background
from annofree.detections.nms import suppress_masks
from annofree.detections.painting import (
    average_over_regions,
    compute_confidence,
    find_strongest,
    number_components,
    resize_to_pixels,
)
from annofree.errors import InputError
from annofree.features.zutis_network import compute_working_size
from annofree.methods.variants import choose_settings
from annofree.ops.necks import cut_at_necks
from annofree.ops.rle import compute_rle_boxes, decode_rle, encode_rle
from annofree.protocols import Described, VisionLanguage
from annofree.structures import BACKGROUND, BoolArray, Classes, Detections, Image, LabelMap, Vocabulary

__all__ = ["VARIANTS", "Proposer", "Zutis", "ZutisEncoding", "ZutisSettings"]

_EPS = 1e-7
_AT_ONCE = 2**25  # values in memory, 128 MiB
_INSIDE = 0.5  # the probability above which a cell or a pixel belongs to a proposal


class Proposer(Described, Protocol):
    """A network that proposes masks beside features that meet text, such as ``features.zutis_network.ZutisNetwork``."""

    @property
    def dimension(self) -> int:
        """D, the length of the features that meet text."""
        ...

    @property
    def side(self) -> int:
        """The short side in px that its images should have, 0 for any."""
        ...

    def propose(self, images: Sequence[Image], side: int = 0, longest: int = 0) -> Sequence[tuple[Tensor, Tensor, Tensor]]:
        """Unit features (D, h, w), their lengths before (h, w), and mask probabilities (Q, h, w) of each image."""
        ...


@dataclass(frozen=True)
class ZutisSettings:
    """What may be chosen.  Raises InputError for sides, areas and powers below 0."""

    # the prompts of a name: ``name`` is the bare name (released), ``ensemble`` the paper's 85; None takes the CLIP's own
    templates: str | None = "name"
    # words that stand for none of the things, scored as classes; what they name is no thing
    background: tuple[str, ...] = (BACKGROUND,)
    # what is averaged inside a proposal: ``unit`` features (released), or ``projected`` ones, with the lengths they had in text
    # space (paper; without the mean of the map in either case)
    pooled: Literal["unit", "projected"] = "unit"
    # the mean probability of a proposal's mask inside it, times that of its class: a ``sigmoid`` of ``logit_scale`` times the
    # cosine, each class by itself (released), or their ``softmax`` (paper)
    score: Literal["sigmoid", "softmax"] = "sigmoid"
    # what cosines are multiplied by in the score: 5 released; 1 with the ``softmax``, as in the loss
    logit_scale: float = 5.0
    # mask IoU above which the weaker of two instances goes; 1 keeps all (0.3 released)
    nms: float = 0.3
    # whether those two have to be of one class (released), or may be of any
    per_class: bool = True
    # an instance counts that scores more than this, in 0 .. 1 (0.001 released)
    min_score: float = 0.001
    # whether the connected parts of what the label map gives to a name are proposals, too: as sure as that name is there on
    # average, times the class's sigmoid of the mean cosine (ours)
    parts: bool = False
    # what cosines are multiplied by for those probabilities, as in the training of the bundled network (ours)
    sharpness: float = 20.0
    # how much nearer to the border, as a share of the largest distance to it, a mask has to be at a neck to be cut there; its
    # pieces are proposals beside it, as sure as it is; 0 cuts none (ours)
    neck: float = 0.0
    # the power of a mask's roundness, 16 x area / edges^2, that its score is multiplied by: what bleeds into its neighbors, and
    # the crumbs of a map, are ragged (ours)
    roundness: float = 0.0
    # the power of a mask's share of the image that its score is multiplied by: the smallest parts are round, too (ours)
    share: float = 0.0
    # px of an instance at least
    min_area: int = 0
    # instances an image, the strongest; 100 as COCO counts them
    most: int = 100
    # the short side in px at which images are read, 0 as they are (released), None what the network is best at
    side: int | None = 0
    # the long side in px that is read at most, and at which masks of larger images are told apart; 0 any (released, but for
    # ImageNet-S: 1024)
    longest: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "background", tuple(self.background))
        for name in ("side", "longest", "min_area"):
            if (getattr(self, name) or 0) < 0:
                raise InputError(f"expected {name} in px, 0 for none, got {getattr(self, name)}")
        if not 0 <= self.neck <= 1:
            raise InputError(f"expected neck in 0 .. 1, 0 to cut nothing, got {self.neck}")
        for name in ("roundness", "share"):
            if not getattr(self, name) >= 0:
                raise InputError(f"expected {name} as a power of at least 0, 0 for none, got {getattr(self, name)}")


_OFFICIAL = ZutisSettings()
VARIANTS: Mapping[str, ZutisSettings] = MappingProxyType(
    {
        # all but longest are chosen on 90 tuning scenes of the emoji world
        "default": replace(
            _OFFICIAL, side=None, longest=1024, parts=True, neck=0.05, roundness=1.5, share=0.5, nms=0.4, min_area=30
        ),
        "proposals": replace(_OFFICIAL, side=None, longest=1024),
        "official": _OFFICIAL,
        "paper": replace(_OFFICIAL, templates="ensemble", pooled="projected", score="softmax", logit_scale=1.0, min_score=0.0),
    }
)


class Named(NamedTuple):
    """``masks`` (N, H, W) bool, the places of their names among the output classes ``owners`` (N), and ``scores`` (N)."""

    masks: Tensor
    owners: Tensor
    scores: Tensor


@dataclass(frozen=True, eq=False)
class ZutisEncoding:
    """All of an image that needs no class name.

    ``size`` (H, W); unit ``features`` (D, h, w), their ``lengths`` (h, w) in text space, and ``masks`` (Q, h, w), the
    probabilities of the proposals.
    """

    size: tuple[int, int]
    features: Tensor
    lengths: Tensor
    masks: Tensor


class Zutis:
    """Names in, instances or a label map out, by one trained ``network`` and the text tower of the ``clip`` it came from.

    Raises InputError for an unknown variant, and for a CLIP whose text has another length than the network's features.
    """

    def __init__(self, network: Proposer, clip: VisionLanguage, settings: ZutisSettings | str = "default") -> None:
        self.settings = choose_settings("zutis", settings, VARIANTS)
        if network.dimension != clip.dimension:
            raise InputError(
                f"expected the CLIP whose text the network was trained with, of length {network.dimension}, "
                f"got {clip.provenance['name']} of length {clip.dimension}"
            )
        self.network, self.clip = network, clip if (t := self.settings.templates) is None else clip.with_prompts(t)
        words = self.settings.background
        self.background = Background("words", words) if words else Background("none")

    @property
    def provenance(self) -> dict[str, Any]:
        """Method, settings, and the models with their hashes and tiers."""
        models = [self.network.provenance, self.clip.provenance]
        return {"method": "zutis", "settings": asdict(self.settings), "models": models}

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """Two of these on the same models can share an encoding when their keys are equal."""
        return "zutis", self._side, self.settings.longest

    @property
    def _side(self) -> int:
        return self.network.side if self.settings.side is None else self.settings.side

    def remarks(self, classes: Classes) -> list[str]:
        """What a person should know before trusting the answer for these names."""
        return self.clip.remarks(self.background.list_rows(classes).rows)

    def encode(self, images: Sequence[Image]) -> list[ZutisEncoding]:
        """Run the network; one encoding an image, in order."""
        if not images:
            return []
        seen = self.network.propose(images, self._side, self.settings.longest)
        return [ZutisEncoding(image.size, *parts) for image, parts in zip(images, seen, strict=True)]

    def semantic(self, image: Image | ZutisEncoding, classes: Classes) -> LabelMap:
        """Name every pixel of an image, or of an encoding of it: cosines drawn at full size, the highest wins."""
        asked = self.background.list_rows(classes)
        encoding = self.encode([image])[0] if isinstance(image, Image) else image
        cosines = self.compute_cosines(encoding, asked)
        best = find_strongest(lambda part: resize_to_pixels(cosines[part], encoding.size), len(asked.rows), encoding.size)
        return self.background.label_pixels(asked, *best)

    def instances(self, image: Image | ZutisEncoding, classes: Classes) -> Detections:
        """Name the proposals for an image, or an encoding of it; those that are background or less than another go."""
        vocabulary = Vocabulary.of(classes)
        asked = self.background.list_rows(vocabulary)
        encoding = self.encode([image])[0] if isinstance(image, Image) else image
        rows, scores = self._named(encoding, self._words(encoding, asked))
        owner = torch.tensor(asked.owner, device=rows.device)[rows]
        kept = scores > self.settings.min_score
        if asked.background is not None:
            kept &= owner != asked.background
        s, size = self.settings, compute_working_size(encoding.size, 1, longest=self.settings.longest)
        least = max(1.0, s.min_area * math.prod(size) / math.prod(encoding.size))  # px of an instance, at this size
        found = Named(draw_inside(encoding.masks[kept], size), owner[kept], scores[kept])
        if s.parts:
            parts = self._find_parts(encoding, asked, size, least)
            found = Named(*(torch.cat(pair) for pair in zip(found, parts, strict=True)))
        if s.neck:
            found = add_pieces(found, s.neck, least, s.most)
        ids = found.owners - (len(asked.names) - len(vocabulary))  # a background may stand before the names
        return resize_detections(self._separate(found.masks, ids, found.scores, vocabulary.names, least), encoding.size)

    def _find_parts(self, encoding: ZutisEncoding, asked: Asked, size: tuple[int, int], least: float) -> Named:
        """The best connected parts of the label map of ``size``, as sure as its names are, scored by their cosines, too."""
        cosines, count = self.compute_cosines(encoding, asked), len(asked.rows)
        best = find_strongest(lambda part: resize_to_pixels(cosines[part], size), count, size)
        sure = compute_confidence(
            lambda part: resize_to_pixels(cosines[part], size), count, size, best.values, self.settings.sharpness
        )
        regions, owners = number_components(self.background.label_pixels(asked, *best), 4)
        means = torch.from_numpy(average_over_regions(regions, len(owners), [sure, best.values]))
        scores = (means[:, 0] * (self.settings.logit_scale * means[:, 1]).sigmoid()).numpy()
        large = regions.flatten().bincount(minlength=1 + len(owners)).numpy()[1:] >= least
        best_of = np.argsort(-np.where(large, scores, -1), kind="stable")[: min(self.settings.most, int(large.sum()))]
        masks = regions[None] == torch.from_numpy(1 + best_of)[:, None, None]
        parts = masks, torch.tensor(owners, dtype=torch.long)[best_of], torch.from_numpy(scores[best_of])
        return Named(*(part.to(sure.device) for part in parts))

    def compute_cosines(self, encoding: ZutisEncoding, asked: Asked) -> Tensor:
        """How much each cell looks like each row, (R, h, w)."""
        return torch.einsum("dhw,rd->rhw", encoding.features, self._words(encoding, asked))

    def _words(self, encoding: ZutisEncoding, asked: Asked) -> Tensor:
        return self.clip.encode_text(asked.rows).to(encoding.features)

    def _named(self, encoding: ZutisEncoding, words: Tensor) -> tuple[Tensor, Tensor]:
        """The best row of each proposal and its score, each (Q); a proposal without a cell scores 0."""
        s, probability = self.settings, encoding.masks.flatten(1)
        inside = (probability > _INSIDE).to(probability)
        cells = inside.sum(1) + _EPS
        sure = (probability * inside).sum(1) / cells
        tokens = encoding.features if s.pooled == "unit" else encoding.features * encoding.lengths
        mean = inside @ tokens.flatten(1).T / cells[:, None]
        logits = s.logit_scale * (mean / (mean.norm(dim=1, keepdim=True) + _EPS)) @ words.T
        best, rows = (logits.sigmoid() if s.score == "sigmoid" else logits.softmax(1)).max(1)
        return rows, sure * best

    def _separate(self, masks: Tensor, ids: Tensor, scores: Tensor, names: Sequence[str], least: float) -> Detections:
        """Turn masks (N, H, W) into detections, without those under ``least`` px, or too much like a stronger one."""
        s = self.settings
        areas = masks.sum((1, 2))
        large = areas >= least
        masks, ids, scores = masks[large], ids[large], scores[large]
        if s.roundness or s.share:
            shares = areas[large] / (masks.shape[1] * masks.shape[2])
            scores = scores * measure_roundness(masks) ** s.roundness * shares**s.share
        if s.nms < 1:
            kept = suppress_masks(masks, scores, ids if s.per_class else None, s.nms)[: s.most]
        else:
            kept = torch.argsort(scores, descending=True, stable=True)[: s.most]
        return Detections.from_masks(masks[kept].cpu().numpy(), ids[kept].cpu().numpy(), scores[kept].cpu().numpy(), names)


def resize_detections(found: Detections, size: tuple[int, int]) -> Detections:
    """Draw the masks of detections at another ``size`` (H, W), one after the other."""
    if found.size == size:
        return found
    drawn = (resize_to_pixels(torch.from_numpy(decode_rle(rle))[None].float(), size)[0] > _INSIDE for rle in found.rles)
    rles = tuple(encode_rle(mask.numpy()) for mask in drawn)
    return replace(found, size=size, boxes=compute_rle_boxes(rles), rles=rles)


def draw_inside(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Draw probabilities (N, h, w) at ``size`` (H, W), a few at a time, and say which pixels are inside, (N, H, W) bool."""
    step = max(1, _AT_ONCE // (size[0] * size[1]))
    drawn = torch.zeros(len(masks), *size, dtype=torch.bool, device=masks.device)
    for start in range(0, len(masks), step):
        drawn[start : start + step] = resize_to_pixels(masks[start : start + step], size) > _INSIDE
    return drawn


def measure_roundness(masks: Tensor) -> Tensor:
    """16 times its area over the square of its edges, of each mask (N, H, W) bool: 1 for a square, less the more ragged.

    An empty mask has 0.

    >>> measure_roundness(torch.tensor([[[True, True], [True, True]], [[True, False], [False, True]]])).tolist()
    [1.0, 0.5]
    """
    edges = [count_edges(mask) for mask in masks]  # one at a time, for memory
    return 16 * masks.sum((1, 2)) / torch.stack(edges).clamp(min=1) ** 2 if edges else torch.zeros(0, device=masks.device)


def count_edges(mask: Tensor) -> Tensor:
    """How many sides of its pixels a mask (H, W) bool has to what is outside it."""
    padded = torch.nn.functional.pad(mask, (1, 1, 1, 1))
    return (padded[1:] ^ padded[:-1]).sum() + (padded[:, 1:] ^ padded[:, :-1]).sum()


def add_pieces(found: Named, neck: float, least: float, most: int) -> Named:
    """Proposals and, after them, the pieces that necks join in them, with their name and score, from the surest on.

    Pieces have ``least`` px or more, and there are ``most`` at most.
    """
    pieces, whose = list[BoolArray](), list[int]()
    for at in found.scores.argsort(descending=True, stable=True).tolist():
        large = [piece for piece in cut_at_necks(found.masks[at].cpu().numpy(), neck) if piece.sum() >= least]
        pieces += large
        whose += [at] * len(large)
        if len(pieces) >= most:
            break
    if not pieces:
        return found
    masks = torch.from_numpy(np.stack(pieces[:most])).to(found.masks.device)
    return Named(torch.cat([found.masks, masks]), *(torch.cat([old, old[whose[:most]]]) for old in found[1:]))
