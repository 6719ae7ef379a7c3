"""Consensus: masks from several proposers, each named by two readings of CLIP, each with the probability that it is right.

    image -> grid of points -> SAM ------------------.
            -> conv4_x -> K-means -> boxes -> SAM x 2 --+-> distinct masks -> CLIP: cut out, and pooled from one pass
            -> a detector, where one was trained ------'        |                          |
                                                                '-> shape, agreement       '-> names compete -> logistic

This project's own: Zip's fragments, SAM everything and CLIP put together.  All of it but the competition of names depends on
no name and is done once, in ``encode``; after that a class list costs one matrix product.
N candidates, K names, R rows that compete, D embedding, H W pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from annofree.clues.background import Background, with_negatives
from annofree.clues.regions import Reading, average_readings
from annofree.detections.bank import Bank, Named, hash_image
from annofree.detections.merging import select_compact
from annofree.detections.nms import suppress
from annofree.detections.painting import build_label_map
from annofree.detections.prompting import draw_masks
from annofree.detections.proposals import Proposals, build_point_grid
from annofree.detections.verification import (
    Calibration,
    Naming,
    compute_signals,
    measure_edge_support,
    measure_geometry,
    pick_best_rows,
)
from annofree.fragments.clusters import Seeding, extract_fragments
from annofree.methods.variants import choose_settings
from annofree.ops.rle import compute_rle_boxes, pack_counts, unpack_counts
from annofree.protocols import DetectorBackend, Embedding, Masker, VisionLanguage
from annofree.structures import BoolArray, Classes, Detections, FeatureMap, FloatArray, Fragments, Image, LabelMap, Vocabulary

__all__ = ["VARIANTS", "Consensus", "ConsensusEncoding", "ConsensusSettings"]

Source = Literal["grid", "fragments", "detector"]


@dataclass(frozen=True)
class ConsensusSettings:
    """What may be chosen."""

    # who proposes masks: SAM on a grid of points, SAM on Zip's fragments, a trained detector where the models have one
    sources: tuple[Source, ...] = ("grid", "detector")
    # what CLIP sees of a mask, averaged: its cut-out, the cells under it, or both
    readings: tuple[Reading, ...] = ("cut-out", "pooled")
    # points a side of the grid (SAM's own)
    points: int = 32
    # mask IoU above which the weaker of two drawn masks is the same thing
    same: float = 0.75
    # drawn masks an image, the strongest by quality times stability
    candidates: int = 100
    # candidates an image that CLIP looks at, the strongest by what their proposers say
    seen: int = 64
    # part of the image that a mask covers at least
    least: float = 0.0005
    # and at most
    largest: float = 0.9
    # detections with a lower score are no candidates
    min_detector_score: float = 0.05
    # how fragments are cut, for the source of that name
    seeding: Seeding = field(default_factory=lambda: Seeding("semantic"))
    # cells of a fragment at least
    min_cells: int = 16
    # most area of a fragment's box over its own (Zip, Eq. 4)
    max_box_ratio: float = 3.0
    # how names compete
    naming: Naming = field(default_factory=Naming)
    # how likely a candidate is right; none: its share times its quality, uncalibrated
    calibration: Calibration | None = None
    # names that compete and are never told
    negatives: tuple[str, ...] = ()
    # mask IoU above which the weaker of two instances of one name goes; 1 keeps all
    within: float = 0.5
    # detections per image, the strongest
    most: int = 100
    # how likely the name of a pixel of a label map is at least; else the pixel is background
    min_pixel: float = 0.5


VARIANTS: Mapping[str, ConsensusSettings] = MappingProxyType({"default": ConsensusSettings()})


@dataclass(frozen=True, eq=False)
class ConsensusEncoding:
    """All of an image of ``size`` (H, W) that needs no class name.

    ``whole`` (D) and ``tokens`` (D, h, w) say what is in it at all; ``counts`` (N) are the candidates' masks as COCO's
    compressed run lengths, ``features`` (N, D) what CLIP sees of them, ``drawn`` (N, 5) their quality, stability, whether a
    detector found them, its score, and how much of the contour lies on an edge of the image, ``shape`` (N, 7) their geometry
    among all that were proposed.
    """

    size: tuple[int, int]
    whole: Tensor
    tokens: FeatureMap
    counts: tuple[str, ...]
    features: Tensor
    drawn: Tensor
    shape: Tensor


class Consensus:
    """Names in, instances out; ``clip``, ``sam`` and, where there is one, ``detector`` are whatever fits the protocols."""

    def __init__(
        self,
        clip: VisionLanguage,
        sam: Masker,
        settings: ConsensusSettings | str = "default",
        detector: DetectorBackend | None = None,
        detector_provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings = choose_settings("consensus", settings, VARIANTS)
        self.clip, self.sam = clip, sam
        self.detector = detector if "detector" in self.settings.sources else None
        self.bank: Bank | None = None
        self._about_detector = dict(detector_provenance or {}) if self.detector is not None else {}

    @property
    def provenance(self) -> dict[str, Any]:
        """Method, settings, and the models with their hashes and tiers."""
        models = [self.clip.provenance, self.sam.provenance]
        models += [self._about_detector] if self._about_detector else []
        return {"method": "consensus", "settings": asdict(self.settings), "models": models}

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """Two of these on the same models can share an encoding when their keys are equal."""
        s = self.settings
        proposing = s.sources, s.points, s.same, s.candidates, s.least, s.largest, s.min_detector_score
        return "consensus", *proposing, s.seen, s.readings, s.seeding, s.min_cells, s.max_box_ratio

    def remarks(self, classes: Classes) -> list[str]:
        """What a person should know before trusting the answer for these names."""
        return self.clip.remarks(with_negatives(Vocabulary.of(classes), self.settings.negatives))

    def encode(self, images: Sequence[Image]) -> list[ConsensusEncoding]:
        """Propose masks and look at each; one encoding an image, in order."""
        if not images:
            return []
        parts = zip(images, self.clip.encode_image(images), self.clip.encode_dense(images), self.sam.embed(images), strict=True)
        return [self._encoded(*part) for part in parts]

    def _encoded(self, image: Image, whole: Tensor, tokens: FeatureMap, embedding: Embedding) -> ConsensusEncoding:
        proposed, said = self._candidates(image, tokens, embedding)
        rles = Detections.from_masks(
            proposed, np.zeros(len(proposed), np.int64), np.ones(len(proposed), np.float32), ["object"]
        ).rles  # equal scores keep the order
        seen = np.argsort(-_own_scores(said), kind="stable")[: self.settings.seen]
        masks, shape = proposed[seen], measure_geometry(rles, image.size)[seen]
        features = self.look(image, tokens, masks)
        counts = pack_counts([rles[i] for i in seen])
        drawn = np.concatenate([said[seen], measure_edge_support(image, masks)[:, None]], 1)
        return ConsensusEncoding(image.size, whole, tokens, counts, features, torch.from_numpy(drawn), torch.from_numpy(shape))

    def _candidates(self, image: Image, tokens: FeatureMap, embedding: Embedding) -> tuple[BoolArray, FloatArray]:
        """Masks (N, H, W), none empty, with what their proposers say of them (N, 4)."""
        s, proposals = self.settings, list[Proposals]()
        if "grid" in s.sources:
            answers = self.sam.predict_masks(embedding, points=build_point_grid(s.points, image.size), multimask=True)
            proposals.append(Proposals.of(answers.masks, answers.quality, answers.stability))
        if "fragments" in s.sources:
            proposals.append(self._of_fragments(image, tokens, embedding))
        masks, said = np.zeros((0, *image.size), bool), np.zeros((0, 4), np.float32)
        if proposals:
            own = Proposals.joined(proposals).suppress(s.same, s.candidates, least=s.least, largest=s.largest)
            none = np.zeros(len(own), np.float32)
            masks, said = own.masks, np.stack([own.quality, own.stability, none, none], 1)
        if self.detector is None:
            return masks, said
        more, scores = self._detected(image)
        one, none = np.ones(len(more), np.float32), np.zeros(len(more), np.float32)
        return np.concatenate([masks, more]), np.concatenate([said, np.stack([none, none, one, scores], 1)])

    def _of_fragments(self, image: Image, tokens: FeatureMap, embedding: Embedding) -> Proposals:
        """Draw Zip's compact fragments, by their boxes and then the refined boxes and their centers."""
        s = self.settings
        pieces = extract_fragments(self.clip.encode_boundaries([image])[0], tokens, s.seeding, 4)
        boxes = _pixels(pieces, select_compact(pieces, s.max_box_ratio, s.min_cells), image.size)
        masks, quality = draw_masks(self.sam, embedding, boxes, "two-step", "box+point")
        return Proposals(masks, quality, np.ones(len(masks), np.float32))

    def _detected(self, image: Image) -> tuple[BoolArray, FloatArray]:
        pixels = torch.tensor(image.pixels).permute(2, 0, 1).float() / 255
        with torch.inference_mode():
            found = self.detector.detect([pixels])[0] if self.detector is not None else None
        if found is None:
            return np.zeros((0, *image.size), bool), np.zeros(0, np.float32)
        masks, scores = found.masks.cpu().numpy(), found.scores.clamp(0, 1).cpu().numpy().astype(np.float32)
        keep = (scores >= self.settings.min_detector_score) & masks.any((1, 2))
        return masks[keep], scores[keep]

    def instances(self, image: Image | ConsensusEncoding, classes: Classes) -> Detections:
        """Name the candidates for an image, or an encoding of it: the likeliest first, those that no name wins left out."""
        encoding = self.encode([image])[0] if isinstance(image, Image) else image
        vocabulary = Vocabulary.of(classes)
        found = self.verify(encoding, vocabulary, self.settings.negatives)
        asked = replace(found[found.class_ids < len(vocabulary)], names=vocabulary.names)
        return asked[: self.settings.most]

    def verify(self, e: ConsensusEncoding, vocabulary: Vocabulary, distractors: Sequence[str]) -> Detections:
        """Name the candidates by competition of some names and distractors, in this order; the likeliest first."""
        return suppress(self._named(e, vocabulary, distractors), within=self.settings.within)

    def _named(self, e: ConsensusEncoding, vocabulary: Vocabulary, distractors: Sequence[str]) -> Detections:
        """All candidates, however much they overlap, the likeliest first."""
        named = self.name_candidates(e, vocabulary, distractors)
        return named.rank() if self.bank is None else self.bank.name_again(named)

    def name_candidates(self, e: ConsensusEncoding, vocabulary: Vocabulary, distractors: Sequence[str]) -> Named:
        """All candidates as text alone names them."""
        rows = with_negatives(vocabulary, distractors)
        words = self.clip.encode_text(rows)
        shares = self.settings.naming.compute_shares(e.features.to(words), words)
        candidates = self.list_candidates(e)
        if self.settings.calibration is None:
            scores = shares.max(1).values.cpu().numpy() * candidates.scores
        else:
            scores = self.settings.calibration.predict(self.compute_signals(e, words, shares))
        again = replace(candidates, names=rows.names, class_ids=pick_best_rows(shares), scores=scores.astype(np.float32))
        return Named(again, e.features, shares, hash_image(e.whole))

    @property
    def naming(self) -> Naming:
        """How names compete for a candidate."""
        return self.settings.naming

    def look(self, image: Image, tokens: FeatureMap, masks: BoolArray) -> Tensor:
        """What CLIP sees of some masks (N, H, W) of an image, (N, D): the mean of its readings."""
        return average_readings(self.clip, image, tokens, masks, self.settings.readings)

    def with_bank(self, bank: Bank) -> Consensus:
        """Return this method with names and scores that a bank shares in."""
        twin = copy.copy(self)
        twin.bank = bank
        return twin

    def semantic(self, image: Image | ConsensusEncoding, classes: Classes) -> LabelMap:
        """Name each pixel of an image, or of an encoding of it, by all candidates on it; else it is background."""
        encoding = self.encode([image])[0] if isinstance(image, Image) else image
        return self.label(encoding, Vocabulary.of(classes), self.settings.negatives)

    def label(self, e: ConsensusEncoding, vocabulary: Vocabulary, distractors: Sequence[str]) -> LabelMap:
        """Name each pixel likewise, by competition of some names and distractors, whose pixels are background."""
        asked = Background("threshold").list_rows(vocabulary)
        found = self._named(e, asked.rows, distractors)
        owner = np.array([*asked.owner, *range(len(asked.names), len(asked.names) + len(found.names))], np.int64)
        names = (*asked.names, *found.names[len(asked.rows) :])
        things = replace(found, names=names, class_ids=owner[found.class_ids])
        labels = build_label_map(things, asked.background or 0, self.settings.min_pixel).labels
        labels[labels >= len(asked.names)] = asked.background or 0
        return LabelMap(labels, asked.names, asked.background or 0)

    def list_candidates(self, e: ConsensusEncoding) -> Detections:
        """All candidates, without a name, scored by what their proposers say of them."""
        scores = _own_scores(e.drawn.numpy())
        return _detections(e, np.zeros(len(scores), np.int64), scores, ("object",))

    def compute_signals(self, e: ConsensusEncoding, words: Tensor, shares: Tensor) -> FloatArray:
        """What speaks for each candidate's best row, (N, S), for the ``shares`` (N, R) of unit ``words`` (R, D)."""
        presence = self.clip.score_presence(e.whole, e.tokens, words)
        return compute_signals(e.features.to(words), words, shares, presence, e.drawn.numpy(), e.shape.numpy())


def _own_scores(said: FloatArray) -> FloatArray:
    """How sure the proposers are of each candidate, (N), by what they say of it."""
    quality, stability, _, score = said.T[:4]
    scores: FloatArray = np.maximum(quality * stability, score)
    return scores


def _detections(e: ConsensusEncoding, ids: Any, scores: FloatArray, names: tuple[str, ...]) -> Detections:
    rles = unpack_counts(e.counts, e.size)
    return Detections(e.size, names, ids, scores.astype(np.float32), compute_rle_boxes(rles), rles)


def _pixels(pieces: Fragments, keep: Tensor, size: tuple[int, int]) -> FloatArray:
    """The boxes (N, 4) px of the fragments that are kept."""
    height, width = pieces.labels.shape
    scale = np.array([size[1] / width, size[0] / height] * 2, np.float32)
    boxes: FloatArray = pieces.boxes[keep].cpu().numpy().astype(np.float32) * scale
    return boxes
