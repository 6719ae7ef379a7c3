"""Distractors: common class names that compete with the requested classes, so that other objects are not forced into one.

K requested classes, R distractors, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from annofree.errors import InputError
from annofree.protocols import VisionLanguage
from annofree.structures import Vocabulary

__all__ = ["Distractors", "Taxonomy"]

Words = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Taxonomy:
    """Hypernyms, parts and synonyms of class names, in lower case.

    >>> pets = Taxonomy(kinds={"animal": ("dog", "cat"), "dog": ("puppy",)}, parts={"dog": ("paw",)})
    >>> [sorted(pets.find_kin(word)) for word in ("dog", "Puppies", "guide dog", "paw", "sofa")]
    [['animal', 'dog', 'puppy'], ['animal', 'dog', 'puppy'], ['animal', 'dog', 'puppy'], ['dog', 'paw', 'puppy'], []]
    """

    # the kinds of a thing
    kinds: Words = field(default_factory=dict)
    # other words for a thing
    synonyms: Words = field(default_factory=dict)
    # what a thing is made of
    parts: Words = field(default_factory=dict)

    def find_kin(self, word: str) -> frozenset[str]:
        """A name and its related names: hypernyms, hyponyms and what it is a part of.

        None for an unknown word; for several words, the last one is looked up.
        """
        found = set[str]()
        for name in self._named(" ".join(word.lower().split())):
            wholes = {whole for whole, parts in self.parts.items() if name in parts}
            found |= {name} | self._above(name) | self._below(name) | wholes
            found |= {kind for whole in wholes for kind in self._below(whole)}
        return frozenset(found)

    def _named(self, word: str) -> set[str]:
        """Taxonomy entries of a word: itself, its singular, or its last word."""
        known = {*self.kinds, *self.parts}.union(*self.kinds.values(), *self.parts.values(), self.synonyms)
        for form in (word, *_singular(word)):
            meant = {name for name, others in self.synonyms.items() if form in others}
            if meant or form in known:
                return meant | ({form} & known)
        _, blank, last = word.rpartition(" ")
        return self._named(last) if blank else set()

    def _above(self, name: str) -> set[str]:
        direct = {above for above, kinds in self.kinds.items() if name in kinds}
        return direct.union(*(self._above(above) for above in direct))

    def _below(self, name: str) -> set[str]:
        direct = set(self.kinds.get(name, ()))
        return direct.union(*(self._below(below) for below in direct))


def _singular(word: str) -> list[str]:
    endings = (("ies", "y"), ("ves", "f"), ("es", ""), ("s", ""))
    return [word.removesuffix(many) + one for many, one in endings if word.endswith(many) and len(word) > len(many) + 1]


@dataclass(frozen=True)
class Distractors:
    """Distractor classes, without those too similar to a requested class.

    Raises InputError unless ``nearest`` is above 0.
    """

    # the names, of any kind
    names: tuple[str, ...] = ()
    # what to exclude for a requested class: the relatives of a known name
    taxonomy: Taxonomy = field(default_factory=Taxonomy)
    # of a name that the taxonomy does not know: the standard deviations by which the cosine of its text feature with a
    # distractor's lies above those with all distractors, from which that distractor is too near; inf lets all compete
    nearest: float = float("inf")

    def __post_init__(self) -> None:
        if not self.nearest > 0:
            raise InputError(f"expected a nearness above 0, got {self.nearest}")

    def choose(self, vocabulary: Vocabulary, clip: VisionLanguage) -> tuple[str, ...]:
        """Choose the distractors for a class list, in the order of the list."""
        asked = [word.lower() for words in vocabulary.synonyms for word in words]
        kin = {word: self.taxonomy.find_kin(word) for word in asked}
        gone = set(asked).union(*kin.values())
        left = [name for name in self.names if name.lower() not in gone]
        strangers = [word for word in asked if not kin[word]]
        if self.nearest == float("inf") or not strangers or len(left) < 2:
            return tuple(left)
        return tuple(self._apart(left, strangers, clip))

    def _apart(self, left: list[str], strangers: Iterable[str], clip: VisionLanguage) -> list[str]:
        """The names that are not too similar to any of the words."""
        words = clip.encode_text(Vocabulary.from_entries((name,) for name in left))
        cosines = words @ clip.encode_text(Vocabulary.from_entries((word,) for word in dict.fromkeys(strangers))).T
        return [name for name, near in zip(left, _near(cosines, self.nearest), strict=True) if not near]


def _near(cosines: Tensor, nearest: float) -> list[bool]:
    """Which distractors (R) stand out by ``nearest`` deviations in the cosines (R, K) with any name."""
    deviation = cosines.std(0).clamp(min=1e-6)
    near: list[bool] = torch.any((cosines - cosines.mean(0)) / deviation >= nearest, dim=1).tolist()
    return near
