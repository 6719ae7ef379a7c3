"""Zip (Shi and Yang, ICLR 2024): CLIP finds where objects end, SAM draws them.

    image -> clue: where each name is ---------------------------.
            -> conv4_x -> K-means -> fragments, without a name -> kept, joined -> box -> SAM -> its center -> SAM

What needs no name is done once, in ``encode``; after that a class list costs one matrix product, two comparisons and the
prompts.  K classes, N fragments or instances, h w cells of the boundary map, H W pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from annofree.clues.background import with_negatives
from annofree.clues.channel_norm import divide_by_channels
from annofree.clues.presence import measure_folder_levels, subtract_levels
from annofree.clues.similarity import compute_cosine_clues, mark_active_cells, stretch_to_unit
from annofree.detections.merging import (
    as_single_instances,
    merge_adjacent,
    number_regions,
    select_fragments_official,
    select_fragments_paper,
    sum_over_fragments,
)
from annofree.detections.nms import drop_claimed, suppress
from annofree.detections.prompting import Prompting, SecondPrompt, draw_masks
from annofree.errors import InputError
from annofree.fragments.clusters import Seeding, extract_fragments
from annofree.methods.variants import choose_settings
from annofree.ops.grids import Sampling, resize_maps, resize_nearest
from annofree.ops.regions import Connectivity
from annofree.protocols import Embedding, Masker, RawClip, VisionLanguage
from annofree.structures import Classes, Detections, FeatureMap, Fragments, Image, Vocabulary

__all__ = ["VARIANTS", "Clues", "Coarse", "Zip", "ZipEncoding", "ZipSettings"]


@dataclass(frozen=True)
class ZipSettings:
    """What may be chosen."""

    # kept ``fragments`` that touch (Zip); those and each kept fragment alone (``both``, ours: what touches may still be two
    # things, and SAM's quality tells); or the ``clue``'s own connected components, the ablation of Table 3
    instances: Literal["fragments", "both", "clue"] = "fragments"
    # where K-means starts
    seeding: Seeding = field(default_factory=Seeding)
    # ``paper`` (mean activation >= ``min_activation``, box <= ``max_box_ratio`` x area; Eq. 4) or ``official`` (the released
    # demo: fractions of active cells)
    selection: Literal["paper", "official"] = "paper"
    # features of the clue are unit vectors cell by cell (``cells``, a cosine), or divided channel by channel by their norm over
    # all tokens (``channels``: the slip of the released demo)
    clue_norm: Literal["cells", "channels"] = "cells"
    # which pixel of the clue a cell of the selection ``official`` looks at: floor(i H / h), or that of float32 products
    sampling: Sampling = "exact"
    # of fragments and instances: 8 (paper) or 4 (demo) neighbors of a cell
    connectivity: Connectivity = 8
    # least mean activation of a fragment, in 0 .. 1, of the selection ``paper`` (Eq. 4)
    min_activation: float = 0.3
    # most area of a fragment's box over its own, of the selection ``paper`` (Eq. 4)
    max_box_ratio: float = 3.0
    # of a fragment, at least; crumbs of a broken boundary bridge what it separates (ours; 0 in paper and demo)
    min_cells: int = 0
    # cells of an instance, at least; 100 in the demo, none in the paper
    min_area: int = 0
    # SAM by the coarse box in ``one-step``, then by the refined box's center in ``two-step``, or ``none``
    prompting: Prompting = "two-step"
    # whether that second step sees the ``point`` alone; the paper does not say
    second: SecondPrompt = "point"
    # a class less likely than this to be in the image is passed over. The paper computes the image-level similarity and does
    # not say for what; without a gate each absent class yields instances
    presence: float = 0.5
    # the mean stretched clue of an instance (paper), that times the class's presence (``joint``), the ``geometric`` mean of
    # that and SAM's own quality, as the paper scores SAM + CLIP, or that ``quality`` alone
    score: Literal["activation", "joint", "geometric", "quality"] = "activation"
    # mask IoU above which the weaker of two instances of one class goes (ours: several fragments of a thing may each make SAM
    # draw the whole; 1 keeps all, as the paper)
    within: float = 1.0
    # the same of two instances of different classes (ours; 1 keeps all, as the paper)
    across: float = 1.0
    # the part of an instance above which it goes when it lies in a stronger one of its class (ours; 1 keeps all)
    inside: float = 1.0
    # the demo's slip of scaling x by H / h and y by W / w
    swapped_scale: bool = False
    # instances an image, the strongest
    most: int = 100
    # names that are looked for, too, and never told (ours)
    negatives: tuple[str, ...] = ()
    # an instance goes where a stronger one of the ``negatives`` covers it by a mask IoU above this (ours)
    against: float = 0.5


_PAPER = ZipSettings(seeding=Seeding("semantic"))

VARIANTS: Mapping[str, ZipSettings] = MappingProxyType(
    {
        "default": _PAPER,
        "paper": _PAPER,
        "official": ZipSettings(
            selection="official",
            clue_norm="channels",
            sampling="float32",
            connectivity=4,
            min_area=100,
            prompting="none",
            swapped_scale=True,
        ),
    }
)
"""``default`` is what is published, but for what was chosen with the models of a preset (``methods/tuning.py``)."""


@dataclass(frozen=True, eq=False)
class ZipEncoding:
    """All of an image that needs no class name.

    ``size`` (H, W); ``tokens`` (D, h', w') text-aligned; ``whole`` (D); ``fragments`` on (h, w); SAM's ``embedding``; the
    features ``clued`` (D, h', w') that the clue is read from, where they are others than ``tokens``.
    """

    size: tuple[int, int]
    tokens: FeatureMap
    whole: Tensor
    fragments: Fragments
    embedding: Embedding
    clued: FeatureMap | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the boundary map."""
        return self.fragments.labels.shape[0], self.fragments.labels.shape[1]


@dataclass(frozen=True, eq=False)
class Clues:
    """Where each class may be that may be in the image at all.

    ``presence`` (K), how likely each class is there; ``asked`` (A), the places of those that pass the gate; ``maps``
    (A, h', w') in 0 .. 1, each stretched by itself.
    """

    presence: Tensor
    asked: Tensor
    maps: Tensor


@dataclass(frozen=True, eq=False)
class Coarse:
    """Instances before SAM, strongest first.

    ``regions`` (N, h, w) bool cells; ``boxes`` (N, 4) px; ``class_ids`` (N); ``scores`` (N).
    """

    regions: Tensor
    boxes: Tensor
    class_ids: Tensor
    scores: Tensor


class Zip:
    """Names in, instances out, by two frozen models and no training; ``clip`` and ``sam`` are whatever fits the protocols."""

    def __init__(self, clip: VisionLanguage, sam: Masker, settings: ZipSettings | str = "default") -> None:
        self.clip, self.sam = clip, sam
        self.settings = choose_settings("zip", settings, VARIANTS)
        self._levels: Mapping[str, float] = {}

    def without_gate(self) -> Zip:
        """Return this method without its gate: for who decides by other means which classes are in an image."""
        twin = copy.copy(self)
        twin.settings = replace(self.settings, presence=0.0)
        return twin

    def with_calibration(self, encodings: Iterable[ZipEncoding], classes: Classes) -> Zip:
        """Return this method with the presence of each class set against that in a folder, given by its encodings.

        See ``clues/presence.py``; ours.  Raises InputError for too few images.
        """
        vocabulary, twin = Vocabulary.of(classes), copy.copy(self)
        words = self.clip.encode_text(vocabulary)
        levels = measure_folder_levels(self.clip.score_presence(e.whole, e.tokens, words) for e in encodings)
        twin._levels = dict(zip(vocabulary.names, levels.tolist(), strict=True))
        return twin

    @property
    def provenance(self) -> dict[str, Any]:
        """Method, settings, and the models with their hashes and tiers."""
        own = {"method": "zip", "settings": asdict(self.settings), "models": [self.clip.provenance, self.sam.provenance]}
        return own | ({"presence_levels": dict(self._levels)} if self._levels else {})

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """Two Zips on the same models can share an encoding when their keys are equal."""
        return "zip", self.settings.seeding, self.settings.connectivity, self.settings.clue_norm

    def remarks(self, classes: Classes) -> list[str]:
        """What a person should know before trusting the answer for these names."""
        return self.clip.remarks(with_negatives(Vocabulary.of(classes), self.settings.negatives))

    def encode(self, images: Sequence[Image]) -> list[ZipEncoding]:
        """Do all that needs no class name; one encoding an image, in order."""
        if not images:
            return []
        tokens, clued = self._read_cells(images)
        seeding, connectivity = self.settings.seeding, self.settings.connectivity
        pairs = zip(self.clip.encode_boundaries(images), tokens, strict=True)
        fragments = [extract_fragments(b, t, seeding, connectivity) for b, t in pairs]
        parts = zip(images, tokens, self.clip.encode_image(images), fragments, self.sam.embed(images), clued, strict=True)
        return [ZipEncoding(image.size, *rest) for image, *rest in parts]

    def _read_cells(self, images: Sequence[Image]) -> tuple[list[FeatureMap], Sequence[FeatureMap | None]]:
        """Unit features of cells, and those of the clue where they are others."""
        if self.settings.clue_norm == "cells":
            return self.clip.encode_dense(images), [None] * len(images)
        if not isinstance(self.clip, RawClip):
            raise InputError(
                "clue_norm 'channels' needs a CLIP that gives features before they are made unit vectors; set it to 'cells'"
            )
        raw = self.clip.encode_raw(images)
        units = [FeatureMap(F.normalize(cells.values, dim=0), cells.size) for cells, _ in raw]
        return units, [divide_by_channels(cells, tokens) for cells, tokens in raw]

    def instances(self, image: Image | ZipEncoding, classes: Classes) -> Detections:
        """Find the instances of some classes in an image, or in an encoding of it."""
        vocabulary = Vocabulary.of(classes)
        encoding = self.encode([image])[0] if isinstance(image, Image) else image
        found = self._found(encoding, vocabulary)
        if not self.settings.negatives or not len(found):
            return found
        rest = with_negatives(vocabulary, self.settings.negatives).synonyms[len(vocabulary) :]
        others = self._found(encoding, Vocabulary.from_entries(rest)) if rest else found[:0]
        return drop_claimed(found, others, self.settings.against)

    def _found(self, encoding: ZipEncoding, vocabulary: Vocabulary) -> Detections:
        """The instances of some names, whatever the negatives are."""
        coarse = self.find_coarse(encoding, vocabulary)
        masks, quality = self.draw_instances(encoding, coarse)
        ids, scores = coarse.class_ids.cpu().numpy(), coarse.scores.cpu().numpy()
        if self.settings.score in ("geometric", "quality"):
            scores = np.sqrt(scores * quality) if self.settings.score == "geometric" else quality
        scores = np.clip(scores, 0, 1)  # a mean of what is 1 everywhere may round to more
        found = Detections.from_masks(masks, ids, scores, vocabulary.names)
        return suppress(found, within=self.settings.within, across=self.settings.across, inside=self.settings.inside)

    def compute_clues(self, encoding: ZipEncoding, vocabulary: Vocabulary) -> Clues:
        """Say how likely each class is in the image, and where those may be that are likely enough."""
        words = self.clip.encode_text(vocabulary)
        presence = self.clip.score_presence(encoding.whole, encoding.tokens, words)
        if self._levels:
            presence = subtract_levels(presence, torch.tensor([self._levels.get(name, 0.0) for name in vocabulary.names]))
        asked = torch.nonzero(presence >= self.settings.presence)[:, 0]
        read = encoding.tokens if encoding.clued is None else encoding.clued
        if not len(asked):
            return Clues(presence, asked, presence.new_zeros(0, *read.values.shape[1:]))
        maps = stretch_to_unit(compute_cosine_clues(read, words[asked], self.clip.encode_null_text()).values)
        return Clues(presence, asked, maps)

    def find_coarse(self, encoding: ZipEncoding, vocabulary: Vocabulary) -> Coarse:
        """Find the instances on the cells of the boundary map, before SAM."""
        clues = self.compute_clues(encoding, vocabulary)
        presence, asked, active = clues.presence, clues.asked, clues.maps
        if not len(asked):
            regions = presence.new_zeros(0, *encoding.grid, dtype=torch.bool)
            return Coarse(regions, presence.new_zeros(0, 4), asked, presence.new_zeros(0))
        cells = resize_maps(active, encoding.grid)
        weight = presence[asked] if self.settings.score != "activation" else torch.ones_like(presence[asked])
        maps = self._maps(encoding, active, cells)
        return self._strongest([self._scored(encoding, m, cells * weight[:, None, None], asked) for m in maps])

    def _maps(self, encoding: ZipEncoding, active: Tensor, cells: Tensor) -> list[Tensor]:
        """Instances (K, h, w) numbered from 1 over all classes; ``cells`` is ``active`` on the boundary grid."""
        s = self.settings
        if s.instances == "clue":
            return [number_regions(cells >= s.min_activation, s.connectivity, s.min_area)]
        kept = self.select_fragments(encoding, active, cells)
        together = merge_adjacent(encoding.fragments, kept, s.connectivity, s.min_area)
        return [together] if s.instances == "fragments" else [together, as_single_instances(encoding.fragments, kept)]

    def select_fragments(self, encoding: ZipEncoding, active: Tensor, cells: Tensor) -> Tensor:
        """Which fragments each class keeps, (K, N) bool."""
        s, pieces = self.settings, encoding.fragments
        if s.selection == "paper":
            limits: dict[str, Any] = {
                "min_activation": s.min_activation,
                "max_box_ratio": s.max_box_ratio,
                "min_cells": s.min_cells,
            }
            return select_fragments_paper(pieces, cells, **limits)
        # class by class: the demo's threshold needs the mean over all pixels, and 80 such maps are large
        full = (resize_maps(a[None], encoding.size) for a in active)
        marked = [mark_active_cells(each, encoding.grid, s.sampling) for each in full]
        return select_fragments_official(pieces, torch.cat(marked))

    def _scored(self, encoding: ZipEncoding, regions: Tensor, cells: Tensor, asked: Tensor) -> Coarse:
        """Score each of the regions (K, h, w) by the mean of its class's ``cells`` (K, h, w); the strongest first."""
        count = int(regions.max())
        area = torch.bincount(regions.flatten(), minlength=count + 1)[1:]
        scores = sum_over_fragments(regions, count, cells[None])[0] / area
        found = ndimage.find_objects(regions.cpu().numpy())
        owner = torch.tensor([place[0].start for place in found], dtype=torch.long, device=cells.device)
        boxes = torch.tensor([[x.start, y.start, x.stop, y.stop] for _, y, x in found], device=cells.device).view(-1, 4)
        order = torch.argsort(scores, descending=True, stable=True)[: self.settings.most]
        chosen = regions[owner[order]] == (order + 1)[:, None, None]
        return Coarse(chosen, self._pixels(boxes[order], encoding), asked[owner[order]], scores[order])

    def _strongest(self, found: list[Coarse]) -> Coarse:
        """Merge proposals, the strongest first, no more than the settings allow."""
        if len(found) == 1:
            return found[0]
        scores = torch.cat([f.scores for f in found])
        order = torch.argsort(scores, descending=True, stable=True)[: self.settings.most]
        regions, boxes = torch.cat([f.regions for f in found])[order], torch.cat([f.boxes for f in found])[order]
        return Coarse(regions, boxes, torch.cat([f.class_ids for f in found])[order], scores[order])

    def _pixels(self, boxes: Tensor, encoding: ZipEncoding) -> Tensor:
        """Scale boxes from cells to pixels."""
        down, right = (full / cells for full, cells in zip(encoding.size, encoding.grid, strict=True))
        scale = [down, right, down, right] if self.settings.swapped_scale else [right, down, right, down]
        return boxes.float() * boxes.new_tensor(scale, dtype=torch.float32)

    def draw_instances(self, encoding: ZipEncoding, coarse: Coarse) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
        """Draw the instances (N, H, W), with SAM's quality (N): without SAM, and where it draws nothing, their cells, and 1."""
        cells: npt.NDArray[np.bool_] = resize_nearest(coarse.regions, encoding.size).cpu().numpy()
        if self.settings.prompting == "none" or not len(cells):
            return cells, np.ones(len(cells), np.float32)
        boxes = coarse.boxes.cpu().numpy()
        masks, quality = draw_masks(self.sam, encoding.embedding, boxes, self.settings.prompting, self.settings.second)
        return np.where(np.any(masks, axis=(1, 2))[:, None, None], masks, cells), quality
