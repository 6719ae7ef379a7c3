"""Background rules: which pixels belong to none of the requested classes.

K output classes, R scored text rows: the background may have several rows, or none of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from annofree.errors import InputError, build_unknown_error
from annofree.structures import BACKGROUND, Classes, LabelMap, Vocabulary

__all__ = ["Asked", "Background", "with_negatives"]

_RULES = ("none", "words", "threshold", "objectness")


@dataclass(frozen=True, eq=False)
class Asked:
    """The text rows to score, and the output class of each.

    ``rows`` (R) are the prompts to compare with; ``names`` (K) the output classes; ``owner`` (R) the class that each row
    scores; ``background`` the index of the background in ``names``, None if every pixel gets a class.
    """

    rows: Vocabulary
    names: tuple[str, ...]
    owner: tuple[int, ...]
    background: int | None

    @property
    def is_background(self) -> Tensor:
        """Boolean mask (R) of the rows that score the background."""
        return torch.tensor([owner == self.background for owner in self.owner])


@dataclass(frozen=True)
class Background:
    """How background pixels are detected.

    A person who lists "background" gets that entry under every rule, and no second one; a word that is asked for as a class is
    no background.  Raises InputError for an unknown rule and for ``words`` without words.
    """

    # ``words`` (each of ``words`` is scored as a class and the maximum is the background score: ZUTIS and CLIP-DIY with
    # "background"), ``threshold`` (the best class score of a pixel is below ``threshold``), ``objectness`` (the objectness
    # is), or ``none``
    rule: Literal["none", "words", "threshold", "objectness"] = "words"
    # what stands for the background, under the rule of that name; ZUTIS and CLIP-DIY take the one word
    words: tuple[str, ...] = (BACKGROUND,)
    # the score, or the objectness, of 0 .. 1 under which a pixel is background, under the other two rules
    threshold: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", tuple(self.words))
        if self.rule not in _RULES:
            raise build_unknown_error("background rule", self.rule, _RULES)
        if self.rule == "words" and not self.words:
            raise InputError("expected words for the background, got none; give some, or take the rule 'none'")

    def list_rows(self, classes: Classes) -> Asked:
        """List the text rows to score for the given classes.

        >>> asked = Background(words=("sky", "wall")).list_rows("dog, cat, sky")
        >>> asked.rows.names, asked.names, asked.owner
        (('wall', 'dog', 'cat', 'sky'), ('background', 'dog', 'cat', 'sky'), (0, 1, 2, 3))
        """
        vocabulary = Vocabulary.of(classes)
        listed = next((i for i, name in enumerate(vocabulary.names) if name.lower() == BACKGROUND), None)
        known = {name.lower() for name in vocabulary.names}
        extra = [w for w in self.words if w.lower() not in known] if self.rule == "words" else []
        added = listed is None and (self.rule in ("threshold", "objectness") or bool(extra))
        names = (BACKGROUND, *vocabulary.names) if added else vocabulary.names
        background = 0 if added else listed
        own = tuple(range(len(names) - len(vocabulary), len(names)))
        rows = Vocabulary((*extra, *vocabulary.names), (*((word,) for word in extra), *vocabulary.synonyms))
        return Asked(rows, names, (*(background or 0 for _ in extra), *own), background)

    def label_pixels(self, asked: Asked, best: Tensor, values: Tensor, objectness: Tensor | None = None) -> LabelMap:
        """Label each pixel from its best row ``best`` (H, W), the score ``values`` (H, W) and ``objectness`` (H, W).

        Raises InputError if the rule needs an objectness map and none is given.
        """
        labels = torch.tensor(asked.owner, device=best.device)[best]
        if self.rule == "objectness" and objectness is None:
            raise InputError("the background rule 'objectness' needs an objectness source, and there is none; name one")
        if self.rule in ("threshold", "objectness") and asked.background is not None:
            told = values if self.rule == "threshold" or objectness is None else objectness
            labels[told.to(labels.device) < self.threshold] = asked.background
        return LabelMap(labels.cpu().numpy().astype(np.int32), asked.names, asked.background)


def with_negatives(vocabulary: Vocabulary, negatives: Iterable[str]) -> Vocabulary:
    """Append distractor classes after the classes; a requested class is never a distractor, ignoring case.

    >>> with_negatives(Vocabulary.of("dog, cat: kitten"), ["wall", "Dog"]).names
    ('dog', 'cat', 'wall')
    """
    known = {name.lower() for name in vocabulary.names}
    others = [name for name in dict.fromkeys(negatives) if name.lower() not in known]
    return Vocabulary((*vocabulary.names, *others), (*vocabulary.synonyms, *((name,) for name in others)))
