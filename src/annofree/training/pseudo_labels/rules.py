"""The rules by which found things become labels to learn from, on detections and on flat lists of scores.

Nothing here reads or writes, and no mask is decoded.  Conventions: N instances of one image, M of all, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_type_hints

import numpy as np

from annofree.datasets.labeled import AGNOSTIC
from annofree.detections.nms import suppress
from annofree.errors import InputError, build_unknown_error
from annofree.io.settings_file import check_names, check_type
from annofree.ops.rle import compute_rle_ious, compute_rle_parts
from annofree.structures import BoolArray, Detections, FloatArray, IntArray

__all__ = [
    *(
        "ByClass",
        "LabelRules",
        "drop_classes",
        "cap_per_class",
        "join_names",
        "merge_labels",
        "compute_repeat_factors",
        "apply_rules",
    ),
    *("compute_share_floors", "drop_fragments"),
]


@dataclass(frozen=True)
class ByClass:
    """A number for all classes, and others for ``named`` ones.

    >>> ByClass.of(["0.3", "dog=0.5"], 0.0)
    ByClass(usual=0.3, named={'dog': 0.5})
    >>> ByClass.of(0.3, 0.0), ByClass.of({"dog": 0.5}, 0.0)
    (ByClass(usual=0.3, named={}), ByClass(usual=0.0, named={'dog': 0.5}))
    """

    # of the classes that are not named
    usual: float
    # by the class's name
    named: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, given: float | Mapping[str, float] | Sequence[str] | None, usual: float) -> ByClass:
        """Read a number, numbers by name, or texts such as "0.3" and "NAME=0.5", the last one of a name counting.

        ``usual`` is what is not given.  Raises InputError for anything else, and for a number outside 0 .. 1.
        """
        named: dict[str, float] = {}
        for text in _texts(given):
            name, sign, value = text.rpartition("=")
            try:
                number = float(value)
            except ValueError:
                raise InputError(f'expected a number, or a name and a number such as "dog=0.5", got {text!r}') from None
            if not 0 <= number <= 1:
                raise InputError(f"expected a number from 0 to 1, got {number:g} in {text!r}")
            if sign:
                named[name] = number
            else:
                usual = number
        return cls(usual, named)

    def list_values(self, names: tuple[str, ...]) -> FloatArray:
        """The number of each class (K); raises InputError for a name that is none of the classes."""
        for name in self.named:
            if name not in names:
                raise build_unknown_error("class", name, names)
        return np.array([self.named.get(name, self.usual) for name in names], np.float32)

    def to_plain(self) -> float | dict[str, Any]:
        """As JSON has it: the one number, or all with their names."""
        return {"usual": self.usual, "named": dict(self.named)} if self.named else self.usual


def _texts(given: float | Mapping[str, float] | Sequence[str] | None) -> Sequence[str]:
    if given is None:
        return []
    if isinstance(given, Mapping):
        return [f"{name}={value}" for name, value in given.items()]
    return [str(given)] if isinstance(given, (str, int, float)) else given


@dataclass(frozen=True)
class LabelRules:
    """What becomes of found instances, in this order; as a limit of overlap, 1 allows all.

    Raises InputError for numbers outside their range.
    """

    # least score, 0 .. 1
    min_score: ByClass = ByClass(0.0)
    # best share of a class's instances over the least score, 0 .. 1
    keep: ByClass = ByClass(1.0)
    # whether all are then called "object"
    agnostic: bool = False
    # least area of a mask, px
    min_area: int = 1
    # of two of one class with more mask IoU than this the stronger stays
    within: float = 0.5
    # of two of different classes with more mask IoU than this the stronger stays
    across: float = 1.0
    # what lies by more than this share of itself in a bigger one of its class goes
    inside: float = 0.9
    # instances of an image that stay, the best; None for no limit
    most: int | None = None
    # instances of a class that stay, the best over all images; None for no limit
    per_class: int | None = None
    # whether images without instances are left out
    drop_empty: bool = False
    # a class in less than this share f of the images makes them repeat sqrt(rare / f) times (LVIS: 0.001); 0 for none
    rare: float = 0.0
    # earlier labels stay whose mask IoU with every new one is under this (CutLER's self-training)
    earlier: float = 0.5

    def __post_init__(self) -> None:
        shares = {
            "within": self.within,
            "across": self.across,
            "inside": self.inside,
            "rare": self.rare,
            "earlier": self.earlier,
        }
        wrong = [f"{name} {value:g}" for name, value in shares.items() if not 0 <= value <= 1]
        counts = {"min_area": self.min_area, "most": self.most, "per_class": self.per_class}
        wrong += [f"{name} {value}" for name, value in counts.items() if value is not None and value < 1]
        if wrong:
            raise InputError(f"expected shares from 0 to 1 and counts from 1, got {', '.join(wrong)}")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> LabelRules:
        """Read rules from plain values by name; raises InputError for unknown ones and values of another type."""
        check_names("rule of labels", given, [f.name for f in fields(cls)])
        for name, usual in (("min_score", 0.0), ("keep", 1.0)):
            if name in given and not isinstance(given[name], ByClass):
                check_type(name, given[name], float, "the rules of labels")
                given = {**given, name: ByClass.of(given[name], usual)}
        hints = get_type_hints(cls)
        for name, value in given.items():
            check_type(name, value, hints[name], "the rules of labels")
        return cls(**given)

    def to_settings(self) -> dict[str, Any]:
        """As plain values by name; a number for all classes is that number."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value.to_plain() if isinstance(value, ByClass) else value for name, value in values.items()}


def apply_rules(found: Detections, floors: FloatArray, rules: LabelRules) -> tuple[Detections, dict[str, int]]:
    """Apply the rules for one image to what was found in it; tells how many each of them dropped.

    ``floors`` (K) are the least scores of the classes, from ``min_score`` and ``keep``.

    >>> two = Detections.from_masks(np.ones((2, 2, 2), bool), [0, 0], [0.9, 0.4], ["dog"])
    >>> apply_rules(two, np.array([0.3], np.float32), LabelRules())[1]
    {'score': 0, 'area': 0, 'duplicate': 1, 'fragment': 0, 'most': 0}
    """
    steps: Mapping[str, Callable[[Detections], Detections]] = {
        "score": lambda d: _named(d[d.scores >= floors[d.class_ids]], rules.agnostic),
        "area": lambda d: d[d.areas >= rules.min_area],
        "duplicate": lambda d: suppress(d, within=rules.within, across=rules.across),
        "fragment": lambda d: drop_fragments(d, rules.inside),
        "most": lambda d: d[: rules.most],
    }
    dropped = {}
    for name, step in steps.items():
        before, found = len(found), step(found)
        dropped[name] = before - len(found)
    return found, dropped


def _named(found: Detections, alike: bool) -> Detections:
    return drop_classes(found) if alike else found


def drop_classes(found: Detections) -> Detections:
    """The same things, all called "object"."""
    return replace(found, names=(AGNOSTIC,), class_ids=np.zeros_like(found.class_ids))


def drop_fragments(found: Detections, inside: float) -> Detections:
    """Drop what lies by more than the part ``inside`` of itself in a bigger one of its class; of equals the first stays.

    It is the intersection over the smaller area, whichever scores more: a leg goes, its elephant stays.

    >>> whole, leg = np.ones((4, 4), bool), np.eye(4, dtype=bool)
    >>> both = Detections.from_masks(np.stack([leg, whole]), [0, 0], [0.9, 0.5], ["elephant"])
    >>> drop_fragments(both, 0.9).scores.tolist(), len(drop_fragments(both, 1.0))
    ([0.5], 2)
    """
    if len(found) < 2 or inside >= 1:
        return found
    areas, order, parts = found.areas, np.arange(len(found)), compute_rle_parts(found.rles, found.rles)
    same = found.class_ids[:, None] == found.class_ids[None]
    bigger = (areas[None] > areas[:, None]) | ((areas[None] == areas[:, None]) & (order[None] < order[:, None]))
    return found[~(same & bigger & (parts > inside)).any(1)]


def merge_labels(new: Detections, old: Detections, most: float = 0.5) -> Detections:
    """Add to new labels those old ones whose mask IoU with every new one is under ``most``, whatever the classes.

    This is the rule of CutLER's self-training.  Both have the same names.  The order is by falling score.
    """
    if len(new) and len(old):
        old = old[compute_rle_ious(old.rles, new.rles).max(1) < most]
    return Detections.merge([new, old])


def join_names(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    """The names of both, each once."""
    return tuple(dict.fromkeys((*first, *second)))


def compute_share_floors(class_ids: IntArray, scores: FloatArray, shares: FloatArray) -> FloatArray:
    """The least score (K) within the best ``shares`` (K) of each class among ``scores`` (M); what scores equal stays too.

    >>> ids, scores, shares = np.zeros(4, np.int64), np.array([0.1, 0.9, 0.4, 0.6], np.float32), np.array([0.5], np.float32)
    >>> compute_share_floors(ids, scores, shares).round(1)
    array([0.6], dtype=float32)
    """
    floors = np.zeros(len(shares), np.float32)
    for k, share in enumerate(shares.tolist()):
        own = np.sort(scores[class_ids == k])[::-1]
        count = int(np.ceil(share * len(own) - 1e-6))
        floors[k] = 0.0 if not len(own) else own[count - 1] if count else np.inf
    return floors


def cap_per_class(class_ids: IntArray, scores: FloatArray, most: int | None) -> BoolArray:
    """Which of all instances (M) are among the ``most`` best of their class; of equals the first.

    >>> cap_per_class(np.array([0, 0, 1, 0]), np.array([0.2, 0.9, 0.1, 0.9], np.float32), 2).tolist()
    [False, True, True, True]
    """
    if most is None:
        return np.ones(len(scores), bool)
    order = np.lexsort((np.arange(len(scores)), -scores, class_ids))
    sorted_ids = class_ids[order]
    ranks = np.arange(len(order)) - np.searchsorted(sorted_ids, sorted_ids)
    kept = np.zeros(len(scores), bool)
    kept[order[ranks < most]] = True
    return kept


def compute_repeat_factors(images_with: IntArray, images: int, rare: float) -> FloatArray:
    """How often an image of each class (K) is to be seen: max(1, sqrt(rare / f)), f the part of all images that have it.

    An image repeats as its rarest class does.  Repeat factor sampling of Gupta et al., LVIS, CVPR 2019, section 4.

    >>> compute_repeat_factors(np.array([1, 50, 0]), 100, rare=0.04).tolist()
    [2.0, 1.0, 1.0]
    """
    share = np.where(images_with > 0, images_with / max(1, images), 1.0)
    return np.maximum(1.0, np.sqrt(rare / share)).astype(np.float32)
