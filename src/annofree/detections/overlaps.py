"""Which of two instances that overlap stays: a policy that a person states, whatever the method does by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np

from annofree.errors import InputError, unknown_name
from annofree.ops.rle import rle_iou, rle_part
from annofree.structures import BoolArray, Detections, IntArray

__all__ = ["Overlaps", "Prefer"]

Prefer = Literal["strong", "whole", "part"]
"""Of two instances of which one lies in the other, who stays: the higher score, the larger, or the smaller one."""


@dataclass(frozen=True)
class Overlaps:
    """How much two instances may overlap; 1 allows all, which is the default.

    First what is two things in one: an instance goes when two of its class that lie in it, apart from one another, each at
    least half as strong and a third as large, have more than ``pair`` of its area together.  Then twins: from the strongest
    down, an instance goes when its mask IoU with a kept one is above ``within`` (of its class) or ``across`` (of another).
    Then nests, of what is left: where more than ``inside`` (of one class) or ``inside_across`` (of two) of the smaller mask
    lies in the larger one, ``prefer`` says which of the two stays.

    Raises InputError for numbers outside of 0 .. 1 and for another preference.
    """

    within: float = 1.0
    across: float = 1.0
    inside: float = 1.0
    inside_across: float = 1.0
    pair: float = 1.0
    prefer: Prefer = "strong"

    def __post_init__(self) -> None:
        for name in _PARTS:
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"expected {name.replace('_', '-')} from 0 to 1, got {getattr(self, name)}")
        if self.prefer not in get_args(Prefer):
            raise unknown_name("preference", self.prefer, get_args(Prefer))

    @classmethod
    def of(cls, text: str | None) -> Overlaps:
        """Read a policy as a person writes it; nothing written allows all.

        >>> Overlaps.of("within=0.5, inside-across=0.9, prefer=whole")
        Overlaps(within=0.5, across=1.0, inside=1.0, inside_across=0.9, pair=1.0, prefer='whole')
        """
        given = dict(_pair(part) for part in text.split(",")) if text and text.strip() else {}
        values = {name: _number(name, value) if name in _PARTS else value for name, value in given.items()}
        return cls(**values)  # type: ignore[arg-type]  # it checks

    def settled(self, detections: Detections) -> Detections:
        """Drop what overlaps too much; the rest stays in its order.

        >>> full, half = np.ones((2, 2), bool), np.array([[1, 1], [0, 0]], bool)
        >>> both = Detections.from_masks(np.stack([full, half]), [0, 0], [0.8, 0.9], ["cat"])
        >>> [Overlaps(inside=0.9, prefer=p).settled(both).areas.tolist() for p in ("strong", "whole", "part")]
        [[2], [4], [2]]
        """
        return detections[self.kept(detections)]

    def kept(self, detections: Detections) -> IntArray:
        """Which detections ``settled`` leaves, (M) indices in their order."""
        rows, left = np.arange(len(detections)), detections
        if len(left) > 2 and self.pair < 1:
            rows, left = _both(rows, left, np.flatnonzero(~self._two_in_one(left)))
        if len(left) > 1 and min(self.within, self.across) < 1:
            rows, left = _both(rows, left, _kept(self._twins(left), range(len(left))))
        if len(left) > 1 and min(self.inside, self.inside_across) < 1:
            rows, left = _both(rows, left, _kept(self._nests(left), self._order(left)))
        return rows

    def _two_in_one(self, found: Detections) -> BoolArray:
        """Which instances (N) hold two others of their class."""
        areas, part = found.areas.astype(np.float64), rle_part(found.rles, found.rles)
        size = areas[:, None] / areas[None]  # of the first, by the second's
        lies_in = _same(found) & (part > _LIES_IN) & (size > _LEAST_OF_PAIR) & (size < _MOST_OF_PAIR)
        lies_in &= found.scores[:, None] >= _HALF * found.scores[None]
        apart, both = rle_iou(found.rles, found.rles) < _APART, areas[:, None] + areas[None]
        return np.array(
            [
                (apart[np.ix_(k, k)] & (both[np.ix_(k, k)] > self.pair * area)).any()
                for area, k in zip(areas, lies_in.T, strict=True)
            ]
        )

    def _twins(self, found: Detections) -> BoolArray:
        return rle_iou(found.rles, found.rles) > np.where(_same(found), self.within, self.across)

    def _nests(self, found: Detections) -> BoolArray:
        part = rle_part(found.rles, found.rles)
        return np.maximum(part, part.T) > np.where(_same(found), self.inside, self.inside_across)

    def _order(self, found: Detections) -> Sequence[int]:
        """Who is asked first, and stays."""
        if self.prefer == "strong":
            return range(len(found))
        areas = -found.areas if self.prefer == "whole" else found.areas
        return np.argsort(areas, kind="stable").tolist()  # type: ignore[no-any-return]


_PARTS = ("within", "across", "inside", "inside_across", "pair")
_LIES_IN, _LEAST_OF_PAIR, _MOST_OF_PAIR, _HALF, _APART = 0.8, 1 / 3, 0.75, 0.5, 0.1


def _pair(part: str) -> tuple[str, str]:
    name, equals, value = part.partition("=")
    known, name = [f.name for f in fields(Overlaps)], name.strip().replace("-", "_")
    if name not in known:
        raise unknown_name("part of a policy for overlaps", name.replace("_", "-"), [k.replace("_", "-") for k in known])
    if not equals:
        raise InputError(f"expected a value for {name.replace('_', '-')}, such as within=0.5, got {part.strip()!r}")
    return name, value.strip()


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise InputError(f"expected {name.replace('_', '-')} as a number from 0 to 1, got {value!r}") from None


def _same(found: Detections) -> BoolArray:
    return np.asarray(found.class_ids[:, None] == found.class_ids[None])


def _both(rows: IntArray, found: Detections, kept: IntArray) -> tuple[IntArray, Detections]:
    return rows[kept], found[kept]


def _kept(clash: BoolArray, order: Sequence[int]) -> IntArray:
    """Who is left when each, in ``order``, goes that clashes with one that was kept."""
    kept: list[int] = []
    for candidate in order:
        if not clash[candidate, kept].any():
            kept.append(candidate)
    return np.sort(np.array(kept, np.int64))
