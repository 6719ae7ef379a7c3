"""A method with an output policy: it answers as a person wants it, and is a method like any other.

    image -> encode: the method's own, and CLIP's cells -> who may be there -> ranking -> the policy -> answer
                                                                              -> label map, less what distractors win

The cells are the method's where it keeps them, so that CLIP looks at an image once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from annofree.clues.background import with_negatives
from annofree.clues.distractors import Distractors
from annofree.clues.presence import standardize_evidence
from annofree.clues.regions import pool_features
from annofree.detections.policy import OutputPolicy, verify_detections
from annofree.errors import InputError
from annofree.protocols import Segmenter, VisionLanguage
from annofree.structures import BACKGROUND, VOID, Classes, Detections, FeatureMap, Image, LabelMap, Vocabulary

__all__ = ["Answering", "AnsweringBoth", "AnsweringMaps", "Gated", "Labeling", "Seen", "Verifying"]


@dataclass(frozen=True, eq=False)
class Seen:
    """What CLIP sees of an image, whatever the names: ``whole`` (D) and ``tokens`` (D, h, w)."""

    whole: Tensor
    tokens: FeatureMap


@runtime_checkable
class Verifying(Protocol):
    """A method that names its candidates by competition itself."""

    def verify(self, encoding: Any, vocabulary: Vocabulary, distractors: Sequence[str]) -> Detections:
        """The candidates under the likeliest of some names and distractors, in this order; the likeliest first."""
        ...


@runtime_checkable
class Labeling(Protocol):
    """A method of label maps whose names compete with distractors by themselves."""

    def label(self, encoding: Any, vocabulary: Vocabulary, distractors: Sequence[str]) -> LabelMap:
        """The label map for some names; what a distractor wins is background."""
        ...


@runtime_checkable
class Gated(Protocol):
    """A method that asks by itself whether a class is in an image at all."""

    def without_gate(self) -> Any:
        """The method without that gate."""
        ...


class _Deciding:
    """What is common to all: a ``method``, its ``policy``, and the ``clip`` and ``distractors`` of a policy that verifies."""

    def __init__(
        self, method: Any, policy: OutputPolicy, clip: VisionLanguage | None, distractors: Distractors | None = None
    ) -> None:
        self.method, self.policy, self.clip = method, policy, clip
        self.distractors = distractors or Distractors()
        # a class list is asked of image after image
        self._others = lru_cache(1)(lambda vocabulary: self.distractors.choose(vocabulary, self._clip))

    @property
    def _looks(self) -> bool:
        """Whether what CLIP sees of an image is needed beside the method's own encoding."""
        return self.policy.verify and self.policy.presence is not None

    @property
    def provenance(self) -> dict[str, Any]:
        """That of the method, and under ``policy`` how its ranking becomes an answer."""
        competing = {"names": self.distractors.names, "nearest": str(self.distractors.nearest)}
        policy = asdict(self.policy) | {"distractors": competing, "calibrated": self.has_probabilities}
        own: dict[str, Any] = self.method.provenance
        return own | {"policy": policy}

    @property
    def has_probabilities(self) -> bool:
        """Whether scores are probabilities that were fitted."""
        own = getattr(getattr(self.method, "settings", None), "calibration", None)
        return (own if isinstance(self.method, Verifying) else self.policy.calibration) is not None

    @property
    def parts(self) -> tuple[Any, ...]:
        """The methods whose encodings this one's are made of."""
        return (self.method,)

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """Two of these can share an encoding when their keys are equal."""
        return "answering", self._looks, getattr(self.method, "encoding_key", self.method.provenance)

    def remarks(self, classes: Classes) -> list[str]:
        """What a person should know before trusting the answer for these names."""
        return list(self.method.remarks(classes))

    def count_new_texts(self, classes: Classes) -> int:
        """How many texts of names and distractors have to be encoded that are not kept from earlier runs."""
        vocabulary, count = Vocabulary.of(classes), getattr(self.clip, "count_new_texts", None)
        return int(count(with_negatives(vocabulary, self._others(vocabulary)))) if count else 0

    def encode(self, images: Sequence[Image]) -> list[tuple[Any, Seen | None]]:
        """The method's encodings, and what CLIP sees where those do not tell; one an image, in order."""
        inner = self.method.encode(images)
        if not self._looks or all(_seen(encoding) is not None for encoding in inner):
            return [(encoding, None) for encoding in inner]
        looks = zip(inner, self._clip.encode_image(images), self._clip.encode_dense(images), strict=True)
        return [(encoding, Seen(whole, tokens)) for encoding, whole, tokens in looks]

    @property
    def _clip(self) -> VisionLanguage:
        if self.clip is None:
            raise InputError("expected a CLIP for a policy that names candidates again, got none; give one, or verify=False")
        return self.clip

    def _competing(self, seen: Seen | None, vocabulary: Vocabulary) -> tuple[list[int], tuple[str, ...], tuple[str, ...]]:
        """Of the names asked for, which may be there; who else competes; and who of those may be there."""
        clip, others = self._clip, self._others(vocabulary)
        if self.policy.presence is None or seen is None:
            return list(range(len(vocabulary))), others, others
        rows = with_negatives(vocabulary, others)
        there = (
            standardize_evidence(clip.compute_evidence(seen.whole, seen.tokens, clip.encode_text(rows))) >= self.policy.presence
        )
        split = len(vocabulary)
        present = [k for k in range(split) if there[k]]
        absent = tuple(name for k, name in enumerate(vocabulary.names) if not there[k])
        near = tuple(name for name, is_there in zip(rows.names[split:], there[split:].tolist(), strict=True) if is_there)
        return present, (*others, *absent), near


class Answering(_Deciding):
    """A ``method`` whose ranking a ``policy`` decides on; ``clip`` and ``distractors`` serve a policy that verifies.

    A method that names its candidates by competition itself is given the distractors; the candidates of any other are named
    again by the cells that CLIP sees under them.
    """

    method: Segmenter

    @property
    def _looks(self) -> bool:
        return self.policy.verify and (self.policy.presence is not None or not isinstance(self.method, Verifying))

    def remarks(self, classes: Classes) -> list[str]:
        """What a person should know before trusting the answer for these names."""
        said = [] if self.has_probabilities else ["the scores are not calibrated: they rank, but are no probabilities"]
        return [*super().remarks(classes), *said]

    def instances(self, image: Image | tuple[Any, Seen | None], classes: Classes) -> Detections:
        """The answer for an image, or for an encoding of it."""
        vocabulary = Vocabulary.of(classes)
        encoding, seen = self.encode([image])[0] if isinstance(image, Image) else image
        if not self.policy.verify:
            return self.policy.decide(self.method.instances(encoding, vocabulary))
        seen = seen or _seen(encoding)
        present, others, _ = self._competing(seen, vocabulary)
        if not present:
            assert seen is not None  # noqa: S101  # else all names are present
            return Detections.none(seen.tokens.size, vocabulary.names)
        asked = _only(vocabulary, present)
        ranking = self._ranking(encoding, seen, asked, others)
        ids = np.array([*present, *range(len(vocabulary), len(vocabulary) + len(ranking.names))], np.int64)[ranking.class_ids]
        names = (*vocabulary.names, *ranking.names[len(present) :])
        return self.policy.decide(replace(ranking, names=names, class_ids=ids), told=len(vocabulary))

    def with_calibration(self, encodings: Iterable[tuple[Any, Seen | None]], classes: Classes) -> Answering:
        """Return this method with the presence of each class set against that in a folder, as the ranking method does it.

        Raises InputError for a method that gates no class.
        """
        calibrate = getattr(self.method, "with_calibration", None)
        if calibrate is None:
            raise InputError("expected a method that asks whether a class is in a picture at all, such as zip; leave it out")
        twin = copy.copy(self)
        twin.method = calibrate((encoding for encoding, _ in encodings), classes)
        return twin

    def _ranking(self, encoding: Any, look: Seen | None, asked: Vocabulary, others: Sequence[str]) -> Detections:
        if isinstance(self.method, Verifying):
            return self.method.verify(encoding, asked, others)
        assert look is not None  # noqa: S101
        rows = with_negatives(asked, others)
        ranking, words = self.method.instances(encoding, asked), self._clip.encode_text(rows)
        presence = self._clip.score_presence(look.whole, look.tokens, words)
        features = pool_features(look.tokens, ranking.masks)
        return verify_detections(ranking, features, words, presence, self.policy, rows.names)


class AnsweringMaps(_Deciding):
    """Likewise for a method of label maps: distractors compete for each pixel, and what they win is background."""

    def semantic(self, image: Image | tuple[Any, Seen | None], classes: Classes) -> LabelMap:
        """The label map of an image, or of an encoding of it."""
        vocabulary = Vocabulary.of(classes)
        encoding, seen = self.encode([image])[0] if isinstance(image, Image) else image
        if not self.policy.verify:
            own: LabelMap = self.method.semantic(encoding, vocabulary)
            return own
        look = seen or _seen(encoding)
        present, others, near = self._competing(look, vocabulary)
        if not present:
            assert look is not None  # noqa: S101  # else all names are present
            return _renamed(None, look.tokens.size, vocabulary)
        asked = _only(vocabulary, present)
        if isinstance(self.method, Labeling):
            found = self.method.label(encoding, asked, others)
        else:  # a distractor that is not there would cost time and win nothing
            found = self.method.semantic(encoding, with_negatives(asked, near))
        return _renamed(found, found.size, vocabulary)


class AnsweringBoth(Answering, AnsweringMaps):
    """Likewise for a method that finds instances and makes label maps, too."""


def _only(vocabulary: Vocabulary, present: Sequence[int]) -> Vocabulary:
    return Vocabulary.from_entries(vocabulary.synonyms[k] for k in present)


def _renamed(found: LabelMap | None, size: tuple[int, int], vocabulary: Vocabulary) -> LabelMap:
    """A label map in the names asked for, background before them where they have none; all other names are background."""
    listed = next((k for k, name in enumerate(vocabulary.names) if name.lower() == BACKGROUND), None)
    names = vocabulary.names if listed is not None else (BACKGROUND, *vocabulary.names)
    background = listed or 0
    if found is None:
        return LabelMap(np.full(size, background, np.int32), names, background)
    place = {name: k for k, name in enumerate(names)}
    own = [background if k == found.background else place.get(name, background) for k, name in enumerate(found.names)]
    return LabelMap(np.array([*own, VOID], np.int32)[found.labels], names, background)  # VOID, -1, is the last


def _seen(encoding: Any) -> Seen | None:
    """What CLIP saw, where the encoding of a method keeps it."""
    whole, tokens = getattr(encoding, "whole", None), getattr(encoding, "tokens", None)
    return Seen(whole, tokens) if isinstance(whole, Tensor) and isinstance(tokens, FeatureMap) else None
