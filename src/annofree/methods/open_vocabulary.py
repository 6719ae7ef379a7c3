"""Open vocabulary: what a trained detector finds, under any names: those that it learned by its head and CLIP, others by CLIP.

    image -> network -> scored masks of the names that it knows -> things, whatever their name -> CLIP: cut out, and pooled
                                                 |                                                    |
             names that it learned <-- its score of the thing -------- x, weighted --------- share of the name
             all other names      <--- its surest score --------------- x, weighted --------- share of the name

Boxes and masks hang on no name, so a detector that never heard of cats finds them, as something; who they are is asked of CLIP.
The two scores are multiplied, each to a power, and names that the head knows trust it more than others do (as in F-VLM, ICLR
2023, whose head compares with text features, where that of a detector here has fixed names).  All of it but the competition of
names is done once, in ``encode``.

N things, K names that the network knows, R rows that compete, D embedding, H W pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from annofree.clues.background import with_negatives
from annofree.clues.regions import Reading, average_readings
from annofree.detections.nms import suppress
from annofree.detections.verification import Naming, pick_best_rows
from annofree.detectors.config import OBJECT, DetectorConfig
from annofree.errors import InputError
from annofree.methods.detector import DetectorInfo
from annofree.methods.known_names import match_names
from annofree.methods.variants import choose_settings
from annofree.ops.rle import compute_rle_boxes, compute_rle_ious, decode_rles, pack_counts, unpack_counts
from annofree.protocols import DetectorBackend, RawDetections, VisionLanguage
from annofree.structures import RLE, Classes, Detections, FeatureMap, FloatArray, Image, Vocabulary

__all__ = ["VARIANTS", "OpenVocabulary", "OpenVocabularyEncoding", "OpenVocabularySettings"]


@dataclass(frozen=True)
class OpenVocabularySettings:
    """What may be chosen.

    Raises InputError for a number outside of 0 .. 1.
    """

    # what CLIP sees of a thing, averaged: its cut-out, the cells under it, or both
    readings: tuple[Reading, ...] = ("cut-out", "pooled")
    # mask IoU above which two finds of the network are one thing, whatever it calls them
    same: float = 0.7
    # things an image that CLIP looks at, the surest
    seen: int = 64
    # finds with a lower score are no things; the network is asked for all from here on, for of what it did not learn it is
    # seldom sure
    min_detector_score: float = 0.02
    # power of CLIP's share beside the head's score, of names that the network knows (F-VLM's alpha); the head has the rest
    known: float = 0.35
    # the same of all other names, whose head's score is the surest of any name (F-VLM's beta)
    novel: float = 0.65
    # a name that the network knows, but that it does not give to a thing, has this part of the thing's surest score
    unsaid: float = 0.1
    # how names compete; None: by the scale of the models' output policy, CLIP's own 100 for released ones
    naming: Naming | None = None
    # names that compete and are never told
    negatives: tuple[str, ...] = ()
    # mask IoU above which the weaker of two instances of one name goes; 1 keeps all
    within: float = 0.5
    # detections per image, the strongest
    most: int = 100

    def __post_init__(self) -> None:
        for name in ("same", "min_detector_score", "known", "novel", "unsaid", "within"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"expected {name} in 0 .. 1, got {getattr(self, name)}")


VARIANTS: Mapping[str, OpenVocabularySettings] = MappingProxyType({"default": OpenVocabularySettings()})


@dataclass(frozen=True, eq=False)
class OpenVocabularyEncoding:
    """All of an image of ``size`` (H, W) that needs no class name.

    ``whole`` (D) and ``tokens`` (D, h, w) say what is in it at all; ``counts`` (N) are the things' masks as COCO's compressed
    run lengths, ``features`` (N, D) what CLIP sees of them, ``head`` (N, K) the network's scores, 0 for a name not given.
    """

    size: tuple[int, int]
    whole: Tensor
    tokens: FeatureMap
    counts: tuple[str, ...]
    features: Tensor
    head: Tensor


class OpenVocabulary:
    """Any names in, instances out: a ``clip`` and a trained ``network``; ``origin`` says which names it knows.

    A network that knows "object" alone knows no name: all of them are CLIP's.  Raises InputError for an unknown variant.
    """

    def __init__(
        self,
        clip: VisionLanguage,
        network: DetectorBackend,
        origin: DetectorInfo,
        settings: OpenVocabularySettings | str = "default",
    ) -> None:
        self.settings = choose_settings("open_vocabulary", settings, VARIANTS)
        self.clip, self.origin = clip, origin
        self.network: DetectorBackend = _lower_floor(network, self.settings.min_detector_score)

    @property
    def provenance(self) -> dict[str, Any]:
        """Method, settings, and the models with their hashes and tiers, the network with the names that it knows."""
        model = {**self.origin.weights, "trained_on": list(self.origin.names)}
        return {"method": "open_vocabulary", "settings": asdict(self.settings), "models": [self.clip.provenance, model]}

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """Two of these on the same models can share an encoding when their keys are equal."""
        s = self.settings
        return "open_vocabulary", s.readings, s.same, s.seen, s.min_detector_score

    def remarks(self, classes: Classes) -> list[str]:
        """What a person should know before trusting the answer for these names: which of them the network did not learn."""
        vocabulary = Vocabulary.of(classes)
        own = self.clip.remarks(with_negatives(vocabulary, self.settings.negatives))
        learned = set(self._find_known(vocabulary))
        new = [name for k, name in enumerate(vocabulary.names) if k not in learned]
        told = f"the detector did not learn {', '.join(new[:12])}{', ...' if len(new) > 12 else ''}: CLIP alone names these"
        return [*own, told] if new else own

    def encode(self, images: Sequence[Image]) -> list[OpenVocabularyEncoding]:
        """Find things and look at each; one encoding an image, in order."""
        if not images:
            return []
        pixels = [torch.tensor(image.pixels, device=self.origin.device).permute(2, 0, 1).float() / 255 for image in images]
        with torch.inference_mode():
            found = self.network.detect(pixels)
        parts = zip(images, self.clip.encode_image(images), self.clip.encode_dense(images), found, strict=True)
        return [self._encode(*part) for part in parts]

    def _encode(self, image: Image, whole: Tensor, tokens: FeatureMap, found: RawDetections) -> OpenVocabularyEncoding:
        rles, head = self._find_things(found)
        features = average_readings(self.clip, image, tokens, decode_rles(rles, image.size), self.settings.readings)
        return OpenVocabularyEncoding(image.size, whole, tokens, pack_counts(rles), features, torch.from_numpy(head))

    def _find_things(self, found: RawDetections) -> tuple[list[RLE], FloatArray]:
        """The distinct masks (N) of what was found, the surest first, and the score (N, K) of each name of each of them."""
        s, names = self.settings, self.origin.names
        masks, labels, scores = (part.cpu().numpy() for part in (found.masks, found.labels, found.scores))
        sure = scores >= s.min_detector_score
        every = Detections.from_masks(masks[sure], labels[sure], np.clip(scores[sure], 0, 1), names)
        things = suppress(every, within=s.same, across=s.same)[: s.seen]
        head = np.zeros((len(things), len(names)), np.float32)
        if len(things):
            overlap = compute_rle_ious(every.rles, things.rles)
            near = overlap.argmax(1)
            said = overlap[np.arange(len(every)), near] >= s.same  # of the thing itself it is 1
            np.maximum.at(head, (near[said], every.class_ids[said]), every.scores[said])
        return list(things.rles), head

    def instances(self, image: Image | OpenVocabularyEncoding, classes: Classes) -> Detections:
        """Name the things of an image, or of an encoding of it; the highest score first, what a negative wins left out."""
        vocabulary = Vocabulary.of(classes)
        encoding = self.encode([image])[0] if isinstance(image, Image) else image
        found = self.verify(encoding, vocabulary, self.settings.negatives)
        asked = replace(found[found.class_ids < len(vocabulary)], names=vocabulary.names)
        return asked[: self.settings.most]

    def verify(self, encoding: OpenVocabularyEncoding, vocabulary: Vocabulary, distractors: Sequence[str]) -> Detections:
        """Name the things by competition of some names and distractors, in this order; the highest score first."""
        rows = with_negatives(vocabulary, distractors)
        if not encoding.counts:
            return Detections.none(encoding.size, rows.names)
        words = self.clip.encode_text(rows)
        shares = (self.settings.naming or Naming()).compute_shares(encoding.features.to(words), words).cpu()
        scores = self._combine(encoding.head.float(), shares.float(), rows)
        rles = unpack_counts(encoding.counts, encoding.size)
        best = scores.max(1).values.numpy().clip(0, 1).astype(np.float32)
        found = Detections(encoding.size, rows.names, pick_best_rows(scores), best, compute_rle_boxes(rles), rles)
        return suppress(found[np.argsort(-best, kind="stable")], within=self.settings.within)

    def _combine(self, head: Tensor, shares: Tensor, rows: Vocabulary) -> Tensor:
        """The score of each row (N, R), of the head's scores (N, K) and CLIP's shares (N, R)."""
        s, surest = self.settings, head.max(1, keepdim=True).values
        scores = surest ** (1 - s.novel) * shares**s.novel
        for name, row in enumerate(self._find_known(rows)):
            if row >= 0:
                said = torch.maximum(head[:, name], s.unsaid * surest[:, 0])
                scores[:, row] = said ** (1 - s.known) * shares[:, row] ** s.known
        return scores

    def _find_known(self, vocabulary: Vocabulary) -> list[int]:
        """For each name of the network which of some names it is, -1 for none; one that knows "object" alone knows none."""
        return [-1] if self.origin.names == (OBJECT,) else match_names(self.origin.names, vocabulary)


def _lower_floor(network: Any, floor: float) -> Any:
    """The network with a lower floor than its own, where it has one; the one that was given stays as it is."""
    config = getattr(network, "config", None)
    if not isinstance(config, DetectorConfig) or config.score_floor <= floor:
        return network
    twin = copy.copy(network)
    twin.config = replace(config, score_floor=floor)
    return twin
