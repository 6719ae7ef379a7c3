"""Mask suppression: of two that cover the same pixels, which one goes.

    suppress      detections by fixed limits, of two the weaker goes      (Zip, the detector, consensus, pseudo-labels)
    drop_claimed  detections that those of other names claim              (Zip's distractors)
    Overlaps      a policy that a person states, whatever the method does by itself
    suppress_masks      tensors of masks, before they are detections            (ZUTIS, proposals)

Every limit is the most that is allowed: an overlap of just as much stays.  N masks, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from annofree.errors import InputError, build_unknown_error
from annofree.ops.rle import compute_rle_ious, compute_rle_parts
from annofree.structures import BoolArray, Detections, IntArray

__all__ = ["Overlaps", "Prefer", "compute_mask_ious", "drop_claimed", "suppress", "suppress_masks"]

Prefer = Literal["strong", "whole", "part"]
"""Of two instances of which one lies in the other, who stays: the higher score, the larger, or the smaller one."""

_AT_ONCE = 2**25  # values in memory, 128 MiB
_EPS = 1e-7


def suppress(detections: Detections, *, within: float = 1.0, across: float = 1.0, inside: float = 1.0) -> Detections:
    """Go from the strongest down and drop what overlaps a kept one too much.

    ``within`` is the most mask IoU that two of one class may have, ``across`` that two of different classes may; ``inside`` is
    the most part of a mask that may lie in a stronger one of its class, such as a leg in its elephant.  1 allows all.

    >>> full, half = np.ones((2, 2), bool), np.array([[1, 1], [0, 0]], bool)
    >>> both = Detections.from_masks(np.stack([full, half]), [0, 1], [0.9, 0.8], ["cat", "dog"])
    >>> suppress(both, within=0.4).labels.tolist(), suppress(both, across=0.4).labels.tolist()
    (['cat', 'dog'], ['cat'])
    >>> two = Detections.from_masks(np.stack([full, half]), [0, 0], [0.9, 0.8], ["cat"])
    >>> len(suppress(two, within=0.6)), len(suppress(two, inside=0.9))
    (2, 1)
    """
    if not len(detections) or min(within, across, inside) >= 1:
        return detections
    rles, same = detections.rles, _same(detections)
    clash = compute_rle_ious(rles, rles) > np.where(same, within, across)
    if inside < 1:
        clash |= same & (compute_rle_parts(rles, rles) > inside)
    return detections[_keep_greedily(clash, range(len(detections)))]


def drop_claimed(detections: Detections, others: Detections, above: float) -> Detections:
    """Drop what a stronger one of ``others`` covers by a mask IoU above ``above``; of equal scores the detection stays.

    >>> full = np.ones((1, 2, 2), bool)
    >>> cat, wall = Detections.from_masks(full, [0], [0.5], ["cat"]), Detections.from_masks(full, [0], [0.6], ["wall"])
    >>> len(drop_claimed(cat, wall, 0.5)), len(drop_claimed(wall, cat, 0.5))
    (0, 1)
    """
    if not len(detections) or not len(others):
        return detections
    covered = compute_rle_ious(detections.rles, others.rles) > above
    return detections[np.flatnonzero(~(covered & (others.scores[None] > detections.scores[:, None])).any(1))]


@dataclass(frozen=True)
class Overlaps:
    """How much two instances may overlap; 1 allows all, which is the default.

    First what is two things in one, by ``pair``; then twins, by ``within`` and ``across``, from the strongest down; then nests,
    of what is left, by ``inside``, ``inside_across`` and ``prefer``.  All of it is ours (docs/answers.md).

    Raises InputError for numbers outside of 0 .. 1 and for another preference.
    """

    # most mask IoU of an instance with a stronger one of its class that is kept
    within: float = 1.0
    # the same with a stronger one of another class
    across: float = 1.0
    # most part of the smaller of two masks of one class that may lie in the larger one
    inside: float = 1.0
    # the same of two masks of different classes
    inside_across: float = 1.0
    # an instance goes when two of its class that lie in it, apart from one another, each at least half as strong and a third as
    # large, have more than this part of its area together
    pair: float = 1.0
    # of a nest that is too deep, who stays: the stronger, the whole or the part
    prefer: Prefer = "strong"

    def __post_init__(self) -> None:
        for name in _PARTS:
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"expected {name.replace('_', '-')} from 0 to 1, got {getattr(self, name)}")
        if self.prefer not in get_args(Prefer):
            raise build_unknown_error("preference", self.prefer, get_args(Prefer))

    @classmethod
    def of(cls, text: str | None) -> Overlaps:
        """Read a policy as a person writes it; nothing written allows all.

        >>> Overlaps.of("within=0.5, inside-across=0.9, prefer=whole")
        Overlaps(within=0.5, across=1.0, inside=1.0, inside_across=0.9, pair=1.0, prefer='whole')
        """
        given = dict(_pair(part) for part in text.split(",")) if text and text.strip() else {}
        values = {name: _number(name, value) if name in _PARTS else value for name, value in given.items()}
        return cls(**values)  # type: ignore[arg-type]  # it checks

    def apply(self, detections: Detections) -> Detections:
        """Drop what overlaps too much; the rest stays in its order.

        >>> full, half = np.ones((2, 2), bool), np.array([[1, 1], [0, 0]], bool)
        >>> both = Detections.from_masks(np.stack([full, half]), [0, 0], [0.8, 0.9], ["cat"])
        >>> [Overlaps(inside=0.9, prefer=p).apply(both).areas.tolist() for p in ("strong", "whole", "part")]
        [[2], [4], [2]]
        """
        return detections[self.select(detections)]

    def select(self, detections: Detections) -> IntArray:
        """Which detections ``apply`` leaves, (M) indices in their order."""
        rows = np.arange(len(detections))
        for _, left in self._settle(detections):
            rows = left
        return rows

    def explain(self, detections: Detections) -> list[str]:
        """Why each detection goes, an empty text for those that ``apply`` leaves.

        >>> both = Detections.from_masks(np.ones((2, 2, 2), bool), [0, 0], [0.9, 0.8], ["cat"])
        >>> Overlaps(within=0.5).explain(both)
        ['', 'much the same as a stronger one']
        """
        reasons, before = [""] * len(detections), np.arange(len(detections))
        for why, rows in self._settle(detections):
            for k in np.setdiff1d(before, rows).tolist():
                reasons[k] = why
            before = rows
        return reasons

    def _settle(self, left: Detections) -> Iterator[tuple[str, IntArray]]:
        """After each rule, why what it dropped goes, and which are left."""
        rows = np.arange(len(left))
        if len(left) > 2 and self.pair < 1:
            rows, left = _both(rows, left, np.flatnonzero(~self._two_in_one(left)))
            yield "around two others of its name", rows
        if len(left) > 1 and min(self.within, self.across) < 1:
            rows, left = _both(rows, left, _keep_greedily(self._twins(left), range(len(left))))
            yield "much the same as a stronger one", rows
        if len(left) > 1 and min(self.inside, self.inside_across) < 1:
            rows, left = _both(rows, left, _keep_greedily(self._nests(left), self._order(left)))
            yield f"in another or around it, and the {_STAYS[self.prefer]} stays", rows

    def _two_in_one(self, found: Detections) -> BoolArray:
        """Which instances (N) hold two others of their class."""
        areas, part = found.areas.astype(np.float64), compute_rle_parts(found.rles, found.rles)
        size = areas[:, None] / areas[None]  # of the first, by the second's
        lies_in = _same(found) & (part > _LIES_IN) & (size > _LEAST_OF_PAIR) & (size < _MOST_OF_PAIR)
        lies_in &= found.scores[:, None] >= _HALF * found.scores[None]
        apart, both = compute_rle_ious(found.rles, found.rles) < _APART, areas[:, None] + areas[None]
        return np.array(
            [
                (apart[np.ix_(k, k)] & (both[np.ix_(k, k)] > self.pair * area)).any()
                for area, k in zip(areas, lies_in.T, strict=True)
            ]
        )

    def _twins(self, found: Detections) -> BoolArray:
        return compute_rle_ious(found.rles, found.rles) > np.where(_same(found), self.within, self.across)

    def _nests(self, found: Detections) -> BoolArray:
        part = compute_rle_parts(found.rles, found.rles)
        return np.maximum(part, part.T) > np.where(_same(found), self.inside, self.inside_across)

    def _order(self, found: Detections) -> Iterable[int]:
        """Who is asked first, and stays."""
        if self.prefer == "strong":
            return range(len(found))
        areas = -found.areas if self.prefer == "whole" else found.areas
        order: list[int] = np.argsort(areas, kind="stable").tolist()
        return order


_STAYS = {"strong": "stronger", "whole": "whole", "part": "part"}
_PARTS = ("within", "across", "inside", "inside_across", "pair")
_LIES_IN, _LEAST_OF_PAIR, _MOST_OF_PAIR, _HALF, _APART = 0.8, 1 / 3, 0.75, 0.5, 0.1


def suppress_masks(masks: Tensor, scores: Tensor, class_ids: Tensor | None, most: float) -> Tensor:
    """Which of masks (N, H, W) bool stay, strongest first: each that has no IoU over ``most`` with a kept one of its class.

    ``scores`` (N) and ``class_ids`` (N) go with them; without class ids all are of one class.  Of equal scores the last comes
    first (ZUTIS, as released).  Raises InputError where the numbers of masks, scores and class ids differ.

    >>> masks = torch.tensor([[[1, 1, 0, 0]], [[1, 1, 1, 0]], [[0, 0, 0, 1]]]).bool()
    >>> suppress_masks(masks, torch.tensor([0.5, 0.9, 0.7]), None, 0.3).tolist()
    [1, 2]
    """
    ids = torch.zeros(len(masks), dtype=torch.long) if class_ids is None else class_ids
    if not len(masks) == len(scores) == len(ids):
        raise InputError(f"expected a score and a class id a mask, got {len(masks)} masks, {len(scores)} and {len(ids)}")
    order = torch.argsort(scores, stable=True).flip(0)
    stays = torch.ones(len(order), dtype=torch.bool)
    for one in sorted(set(ids.tolist())):
        ranks = torch.nonzero((ids == one).to(order.device)[order])[:, 0]
        if len(ranks) > 1:
            clash = (compute_mask_ious(masks[order[ranks]]).cpu() > most).numpy()
            stays[ranks.cpu()] = False
            stays[ranks.cpu()[_keep_greedily(clash, range(len(clash)))]] = True
    return order[stays.to(order.device)]


def compute_mask_ious(masks: Tensor) -> Tensor:
    """The IoU of each pair of masks (N, H, W) bool, (N, N): their intersections are a product of the flattened masks.

    It is summed over stretches of pixels, so that masks of any size fit into memory.  Counts are exact; an empty mask has an
    IoU of 0 with all.
    """
    count, flat = len(masks), masks.flatten(1)
    shared = torch.zeros(count, count, dtype=torch.float64, device=masks.device)
    step = max(1, min(_AT_ONCE // max(1, count), 2**24))  # up to 2^24 float32 counts exactly
    for start in range(0, flat.shape[1], step):
        values = flat[:, start : start + step].float()
        shared += values @ values.T
    area = shared.diagonal()
    return shared / (area[:, None] + area - shared + _EPS)


def _keep_greedily(clash: BoolArray, order: Iterable[int]) -> IntArray:
    """Who is left, by rising index, when each, in ``order``, goes that clashes with one that was kept."""
    gone, kept = np.zeros(len(clash), bool), list[int]()
    for candidate in order:
        if not gone[candidate]:
            kept.append(candidate)
            gone |= clash[:, candidate]
    return np.sort(np.array(kept, np.int64))


def _same(found: Detections) -> BoolArray:
    return np.asarray(found.class_ids[:, None] == found.class_ids[None])


def _both(rows: IntArray, found: Detections, kept: IntArray) -> tuple[IntArray, Detections]:
    return rows[kept], found[kept]


def _pair(part: str) -> tuple[str, str]:
    name, equals, value = part.partition("=")
    known, name = [f.name for f in fields(Overlaps)], name.strip().replace("-", "_")
    if name not in known:
        raise build_unknown_error("part of a policy for overlaps", name.replace("_", "-"), [k.replace("_", "-") for k in known])
    if not equals:
        raise InputError(f"expected a value for {name.replace('_', '-')}, such as within=0.5, got {part.strip()!r}")
    return name, value.strip()


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise InputError(f"expected {name.replace('_', '-')} as a number from 0 to 1, got {value!r}") from None
