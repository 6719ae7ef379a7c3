"""Distractors: names of common things that compete with the names asked for, so that what is neither stays unnamed.

K names asked for, R distractors, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from annofree.errors import InputError
from annofree.protocols import VisionLanguage
from annofree.structures import Vocabulary

__all__ = ["Distractors"]


@dataclass(frozen=True)
class Distractors:
    """Names that compete and are never told, less those that mean much the same as a name asked for.

    Raises InputError for a nearness outside of 0 .. 1.
    """

    # the names, of any kind
    names: tuple[str, ...] = ()
    # groups of names that mean much the same, or of which one is a kind or a part of the other: where one of a group is
    # asked for, the others are no distractors
    related: tuple[tuple[str, ...], ...] = ()
    # cosine of text features from which a distractor is too near to a name asked for; 1 leaves it to the groups
    nearest: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.nearest <= 1:
            raise InputError(f"expected a nearness from 0 to 1, got {self.nearest}")

    def chosen(self, vocabulary: Vocabulary, clip: VisionLanguage) -> tuple[str, ...]:
        """The distractors for some names, in the order of the list."""
        asked = {word.lower() for words in vocabulary.synonyms for word in words}
        kin = {name.lower() for group in self.related if asked & {n.lower() for n in group} for name in group}
        left = [name for name in self.names if name.lower() not in asked | kin]
        if self.nearest >= 1 or not left:
            return tuple(left)
        near = _near(clip.words(Vocabulary.of(left)), clip.words(vocabulary), self.nearest)
        return tuple(name for name, close in zip(left, near, strict=True) if not close)


def _near(words: Tensor, asked: Tensor, nearest: float) -> Sequence[bool]:
    """Which words (R, D) have a cosine with one of ``asked`` (K, D) of ``nearest`` or more."""
    close: Sequence[bool] = torch.any(words @ asked.T >= nearest, dim=1).tolist()
    return close
