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
from annofree.detections.bank import Bank, BankSettings, Named, hash_image
from annofree.detections.collect_bank import collect_bank
from annofree.detections.policy import OutputPolicy, name_detections
from annofree.detections.verification import Naming
from annofree.errors import InputError
from annofree.protocols import Segmenter, VisionLanguage
from annofree.structures import BACKGROUND, VOID, BoolArray, Classes, Detections, FeatureMap, Image, LabelMap, Vocabulary

__all__ = [
    "Answering",
    "AnsweringBoth",
    "AnsweringMaps",
    "Banking",
    "Competition",
    "Deciding",
    "Gated",
    "Labeling",
    "Seen",
    "Verifying",
    "select_names",
]


@dataclass(frozen=True, eq=False)
class Seen:
    """What CLIP sees of an image, whatever the names: ``whole`` (D) and ``tokens`` (D, h, w)."""

    whole: Tensor
    tokens: FeatureMap


@dataclass(frozen=True)
class Competition:
    """Who competes for an image: places of the names asked for that may be there, other names, and those of these that may."""

    present: tuple[int, ...]
    others: tuple[str, ...]
    near: tuple[str, ...]


@runtime_checkable
class Verifying(Protocol):
    """A method that names its candidates by competition itself."""

    def verify(self, encoding: Any, vocabulary: Vocabulary, distractors: Sequence[str]) -> Detections:
        """The candidates under the likeliest of some names and distractors, in this order; the likeliest first."""
        ...


@runtime_checkable
class Banking(Verifying, Protocol):
    """One that gives its candidates as text names them, and lets a bank share in that."""

    @property
    def naming(self) -> Naming:
        """How names compete for a candidate."""
        ...

    def look(self, image: Image, tokens: FeatureMap, masks: BoolArray) -> Tensor:
        """What CLIP sees of some masks (N, H, W) of an image, (N, D), as it sees candidates."""
        ...

    def name_candidates(self, encoding: Any, vocabulary: Vocabulary, distractors: Sequence[str]) -> Named:
        """All candidates under the likeliest of some names and distractors, however much they overlap."""
        ...

    def with_bank(self, bank: Bank) -> Any:
        """The method with names and scores that a bank shares in."""
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


class Deciding:
    """What is common to all: a ``method``, its ``policy``, and the ``clip`` and ``distractors`` of a policy that verifies."""

    def __init__(
        self, method: Any, policy: OutputPolicy, clip: VisionLanguage | None, distractors: Distractors | None = None
    ) -> None:
        self.method, self.policy, self.clip = method, policy, clip
        self.distractors = distractors or Distractors()
        self.bank: Bank | None = None
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
        return own | {"policy": policy} | ({} if self.bank is None else {"bank": self.bank.provenance})

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

    def find_competing(self, image: tuple[Any, Seen | None], vocabulary: Vocabulary) -> Competition:
        """Of the names asked for those that may be in an encoded image, and who else competes; all, where none is verified."""
        everyone = tuple(range(len(vocabulary)))
        if not self.policy.verify:
            return Competition(everyone, (), ())
        clip, others, seen = self._clip, self._others(vocabulary), _find_seen(image)
        if self.policy.presence is None or seen is None:
            return Competition(everyone, others, others)
        rows = with_negatives(vocabulary, others)
        there = (
            standardize_evidence(clip.compute_evidence(seen.whole, seen.tokens, clip.encode_text(rows))) >= self.policy.presence
        )
        split = len(vocabulary)
        present = tuple(k for k in everyone if there[k])
        absent = tuple(name for k, name in enumerate(vocabulary.names) if not there[k])
        near = tuple(name for name, is_there in zip(rows.names[split:], there[split:].tolist(), strict=True) if is_there)
        return Competition(present, (*others, *absent), near)


class Answering(Deciding):
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
        ranking = self.rank(self.encode([image])[0] if isinstance(image, Image) else image, vocabulary)
        return self.policy.decide(ranking, self.count_told(vocabulary))

    def count_told(self, vocabulary: Vocabulary) -> int | None:
        """How many names of a ranking are told, the first; None where no others compete."""
        return len(vocabulary) if self.policy.verify else None

    def rank(self, image: tuple[Any, Seen | None], vocabulary: Vocabulary) -> Detections:
        """What the policy decides on: the method's ranking of an encoded image, where verified under the names that compete."""
        encoding, seen = image[0], _find_seen(image)
        if not self.policy.verify:
            return self.method.instances(encoding, vocabulary)
        who = self.find_competing(image, vocabulary)
        if not who.present:
            assert seen is not None  # noqa: S101  # else all names are present
            return Detections.none(seen.tokens.size, vocabulary.names)
        ranking = self._ranking(encoding, seen, select_names(vocabulary, who.present), who.others)
        count = len(vocabulary)
        ids = np.array([*who.present, *range(count, count + len(ranking.names))], np.int64)[ranking.class_ids]
        return replace(ranking, names=(*vocabulary.names, *ranking.names[len(who.present) :]), class_ids=ids)

    def with_calibration(self, encodings: Iterable[tuple[Any, Seen | None]], classes: Classes) -> Answering:
        """Return this method with the presence of each class set against that in a folder, as the ranking method does it.

        Raises InputError for a method that gates no class.
        """
        calibrate = getattr(self.method, "with_calibration", None)
        if calibrate is None:
            raise InputError("expected a method that asks whether a class is in an image at all, such as zip; leave it out")
        twin = copy.copy(self)
        twin.method = calibrate((encoding for encoding, _ in encodings), classes)
        return twin

    def with_bank_of(
        self, encodings: Iterable[tuple[Any, Seen | None]], classes: Classes, settings: BankSettings | None = None
    ) -> Answering:
        """Return this method with a bank of a folder, given by its encodings, that shares in names and scores.

        See ``detections/bank.py``; ours.  Raises InputError for a method whose candidates CLIP does not look at one by one, and
        where nothing is told surely enough.
        """
        self.require_seen()
        vocabulary = Vocabulary.of(classes)
        named = (self._name(encoding, vocabulary) for encoding in encodings)
        return self.with_bank(collect_bank((one for one in named if one is not None), settings or BankSettings()))

    def require_seen(self) -> None:
        """Raise InputError for a method whose candidates CLIP does not look at one by one."""
        if not self.policy.verify or (isinstance(self.method, Verifying) and not isinstance(self.method, Banking)):
            raise InputError(
                "expected a method whose every candidate is named by what CLIP sees of it, such as consensus, sam_clip or zip "
                "with the policy answer, for a bank; leave it out"
            )

    def with_bank(self, bank: Bank) -> Answering:
        """Return this method with names and scores that a bank shares in."""
        twin = copy.copy(self)
        twin.bank = bank
        if isinstance(self.method, Banking):
            twin.method = self.method.with_bank(bank)
        return twin

    def look(self, image: Image, masks: BoolArray) -> tuple[Tensor, int]:
        """What CLIP sees of some masks (N, H, W) of an image, (N, D), as it sees candidates; and the number of the image."""
        whole, tokens = self._clip.encode_image([image])[0], self._clip.encode_dense([image])[0]
        own = self.method.look(image, tokens, masks) if isinstance(self.method, Banking) else pool_features(tokens, masks)
        return own, hash_image(whole)

    def compute_shares(self, features: Tensor, vocabulary: Vocabulary) -> tuple[tuple[str, ...], Tensor]:
        """All names that compete, those asked for first, and their shares (N, R) of what CLIP sees, (N, D), by text alone."""
        rows = with_negatives(vocabulary, self._others(vocabulary))
        words = self._clip.encode_text(rows)
        naming = self.method.naming if isinstance(self.method, Banking) else self.policy.naming
        return rows.names, naming.compute_shares(features.float().to(words), words).cpu()

    def _name(self, image: tuple[Any, Seen | None], vocabulary: Vocabulary) -> Named | None:
        """All candidates of an encoded image as text names them; None where no name can be there."""
        who = self.find_competing(image, vocabulary)
        if not who.present:
            return None
        return self._candidates(image[0], _find_seen(image), select_names(vocabulary, who.present), who.others)

    def _ranking(self, encoding: Any, look: Seen | None, asked: Vocabulary, others: Sequence[str]) -> Detections:
        if isinstance(self.method, Verifying):
            return self.method.verify(encoding, asked, others)
        named = self._candidates(encoding, look, asked, others)
        return named.rank() if self.bank is None else self.bank.name_again(named)

    def _candidates(self, encoding: Any, look: Seen | None, asked: Vocabulary, others: Sequence[str]) -> Named:
        if isinstance(self.method, Banking):
            return self.method.name_candidates(encoding, asked, others)
        assert look is not None  # noqa: S101
        rows = with_negatives(asked, others)
        ranking, words = self.method.instances(encoding, asked), self._clip.encode_text(rows)
        presence = self._clip.score_presence(look.whole, look.tokens, words)
        features = pool_features(look.tokens, ranking.masks)
        found, shares = name_detections(ranking, features, words, presence, self.policy, rows.names)
        return Named(found, features, shares, hash_image(look.whole))


class AnsweringMaps(Deciding):
    """Likewise for a method of label maps: distractors compete for each pixel, and what they win is background."""

    def semantic(self, image: Image | tuple[Any, Seen | None], classes: Classes) -> LabelMap:
        """The label map of an image, or of an encoding of it."""
        vocabulary = Vocabulary.of(classes)
        encoded = self.encode([image])[0] if isinstance(image, Image) else image
        if not self.policy.verify:
            own: LabelMap = self.method.semantic(encoded[0], vocabulary)
            return own
        who = self.find_competing(encoded, vocabulary)
        if not who.present:
            seen = _find_seen(encoded)
            assert seen is not None  # noqa: S101  # else all names are present
            return _renamed(None, seen.tokens.size, vocabulary)
        asked = select_names(vocabulary, who.present)
        if isinstance(self.method, Labeling):
            found = self.method.label(encoded[0], asked, who.others)
        else:  # a distractor that is not there would cost time and win nothing
            found = self.method.semantic(encoded[0], with_negatives(asked, who.near))
        return _renamed(found, found.size, vocabulary)


class AnsweringBoth(Answering, AnsweringMaps):
    """Likewise for a method that finds instances and makes label maps, too."""


def select_names(vocabulary: Vocabulary, present: Sequence[int]) -> Vocabulary:
    """Some of the names of a vocabulary, by their places."""
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


def _find_seen(image: tuple[Any, Seen | None]) -> Seen | None:
    """What CLIP saw of an encoded image, beside the method's own encoding or in it."""
    return image[1] or _seen(image[0])


def _seen(encoding: Any) -> Seen | None:
    """What CLIP saw, where the encoding of a method keeps it."""
    whole, tokens = getattr(encoding, "whole", None), getattr(encoding, "tokens", None)
    return Seen(whole, tokens) if isinstance(whole, Tensor) and isinstance(tokens, FeatureMap) else None
