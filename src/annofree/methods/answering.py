"""A method with an output policy: it answers as a person wants it, and is a method like any other.

    picture -> encode: the method's own, and CLIP's cells -> ranking -> the policy -> answer

The cells are the method's where it keeps them, so that CLIP looks at a picture once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from annofree.clues.background import with_negatives
from annofree.clues.distractors import Distractors
from annofree.clues.regions import pooled_features
from annofree.detections.policy import OutputPolicy, verified
from annofree.errors import InputError
from annofree.protocols import Segmenter, VisionLanguage
from annofree.structures import Detections, FeatureMap, Image, LabelMap, Vocabulary

__all__ = ["Answering", "AnsweringBoth", "Seen", "Verifying"]


@dataclass(frozen=True, eq=False)
class Seen:
    """What CLIP sees of a picture, whatever the names: ``whole`` (D) and ``tokens`` (D, h, w)."""

    whole: Tensor
    tokens: FeatureMap


@runtime_checkable
class Verifying(Protocol):
    """A method that names its candidates by competition itself."""

    def verified(self, encoding: Any, vocabulary: Vocabulary, distractors: Sequence[str]) -> Detections:
        """The ranking for some names, less what a distractor wins."""
        ...


class Answering:
    """A ``method`` whose ranking a ``policy`` decides on; ``clip`` and ``distractors`` serve a policy that verifies.

    A method that names its candidates by competition itself is given the distractors; the candidates of any other are named
    again by the cells that CLIP sees under them.
    """

    def __init__(
        self, method: Segmenter, policy: OutputPolicy, clip: VisionLanguage | None, distractors: Distractors | None = None
    ) -> None:
        self.method, self.policy, self.clip = method, policy, clip
        self.distractors = distractors or Distractors()
        self._own = isinstance(method, Verifying)
        self._looks = policy.verify and not self._own

    @property
    def provenance(self) -> dict[str, Any]:
        """That of the method, and under ``policy`` how its ranking becomes an answer."""
        policy = asdict(self.policy) | {"distractors": asdict(self.distractors), "calibrated": self.has_probabilities}
        return self.method.provenance | {"policy": policy}

    @property
    def has_probabilities(self) -> bool:
        """Whether scores are probabilities that were fitted."""
        own = getattr(getattr(self.method, "settings", None), "calibration", None)
        return (own if self._own else self.policy.calibration) is not None

    @property
    def parts(self) -> tuple[Any, ...]:
        """The methods whose encodings this one's are made of."""
        return (self.method,)

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """Two of these can share an encoding when their keys are equal."""
        return "answering", self._looks, getattr(self.method, "encoding_key", self.method.provenance)

    def remarks(self, classes: str | Iterable[str] | Vocabulary) -> list[str]:
        """What a person should know before trusting the answer for these names."""
        said = [] if self.has_probabilities else ["the scores are not calibrated: they rank, but are no probabilities"]
        return [*self.method.remarks(classes), *said]

    def encode(self, images: Sequence[Image]) -> list[tuple[Any, Seen | None]]:
        """The method's encodings, and what CLIP sees where those do not tell; one an image, in order."""
        inner = self.method.encode(images)
        if not self._looks or all(_seen(encoding) is not None for encoding in inner):
            return [(encoding, None) for encoding in inner]
        looks = zip(inner, self._clip.whole(images), self._clip.dense(images), strict=True)
        return [(encoding, Seen(whole, tokens)) for encoding, whole, tokens in looks]

    def instances(self, image: Image | tuple[Any, Seen | None], classes: str | Iterable[str] | Vocabulary) -> Detections:
        """The answer for an image, or for an encoding of it."""
        vocabulary = Vocabulary.of(classes)
        encoding, seen = self.encode([image])[0] if isinstance(image, Image) else image
        return self.policy.decide(self._ranking(encoding, seen, vocabulary))

    def calibrated(self, encodings: Iterable[tuple[Any, Seen | None]], classes: str | Iterable[str] | Vocabulary) -> Answering:
        """Return this method with the presence of each class set against that in a folder, as the ranking method does it.

        Raises InputError for a method that gates no class.
        """
        calibrate = getattr(self.method, "calibrated", None)
        if calibrate is None:
            raise InputError("expected a method that asks whether a class is in a picture at all, such as zip; leave it out")
        twin = copy.copy(self)
        twin.method = calibrate((encoding for encoding, _ in encodings), classes)
        return twin

    @property
    def _clip(self) -> VisionLanguage:
        if self.clip is None:
            raise InputError("expected a CLIP for a policy that names candidates again, got none; give one, or verify=False")
        return self.clip

    def _ranking(self, encoding: Any, seen: Seen | None, vocabulary: Vocabulary) -> Detections:
        if not self.policy.verify:
            return self.method.instances(encoding, vocabulary)
        clip = self._clip
        distractors = self.distractors.chosen(vocabulary, clip)
        if isinstance(self.method, Verifying):
            return self.method.verified(encoding, vocabulary, distractors)
        ranking, look = self.method.instances(encoding, vocabulary), seen or _seen(encoding)
        assert look is not None  # noqa: S101
        words = clip.words(with_negatives(vocabulary, distractors))
        presence = clip.presence(look.whole, look.tokens, words)
        features = pooled_features(look.tokens, ranking.masks)
        return verified(ranking, features, words, presence, self.policy, vocabulary.names)


class AnsweringBoth(Answering):
    """Likewise for a method that makes label maps, too: those are the method's own."""

    def semantic(self, image: Image | tuple[Any, Seen | None], classes: str | Iterable[str] | Vocabulary) -> LabelMap:
        """The label map of an image, or of an encoding of it."""
        both: Any = self.method
        label_map: LabelMap = both.semantic(image if isinstance(image, Image) else image[0], classes)
        return label_map


def _seen(encoding: Any) -> Seen | None:
    """What CLIP saw, where the encoding of a method keeps it."""
    whole, tokens = getattr(encoding, "whole", None), getattr(encoding, "tokens", None)
    return Seen(whole, tokens) if isinstance(whole, Tensor) and isinstance(tokens, FeatureMap) else None
