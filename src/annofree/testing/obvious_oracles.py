"""Reference implementation of the oracle split: one prediction at a time, loops over boolean masks.

The slow reference for ``annofree.evaluation.metrics.oracles``; each function returns new objects and leaves the inputs
unchanged.  Ties go to the first, but a class among the ties is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from annofree.formats.annotations import Annotation
from annofree.ops.rle import decode_rle
from annofree.structures import BoolArray

__all__ = ["assign_obvious_names", "choose_obvious_masks", "compute_obvious_overlap", "score_obvious_order"]


def compute_obvious_overlap(said: Annotation, real: Annotation) -> float:
    """Return the IoU of two masks or, where the second is a crowd, the part of the first inside it.

    >>> import numpy as np
    >>> whole, left = np.ones((2, 4), bool), np.arange(8).reshape(2, 4) % 4 < 2
    >>> compute_obvious_overlap(Annotation.of_mask("dog", left), Annotation.of_mask("dog", whole))
    0.5
    >>> compute_obvious_overlap(Annotation.of_mask("dog", left), Annotation.of_mask("dog", whole, crowd=True))
    1.0
    """
    one, other = _mask(said), _mask(real)
    either = int(one.sum()) if real.crowd else int((one | other).sum())
    return int((one & other).sum()) / either if either else 0.0


def _mask(thing: Annotation) -> BoolArray:
    assert thing.rle is not None  # noqa: S101
    return decode_rle(thing.rle)


def assign_obvious_names(said: Sequence[Annotation], real: Sequence[Annotation]) -> list[Annotation]:
    """Give each prediction the name of what it overlaps by 0.5: of true instances, else of crowds.

    >>> import numpy as np
    >>> mask = np.ones((2, 2), bool)
    >>> assign_obvious_names([Annotation.of_mask("cat", mask, 0.5)], [Annotation.of_mask("dog", mask)])[0].name
    'dog'
    """
    renamed = []
    for thing in said:
        reached = [other for other in real if compute_obvious_overlap(thing, other) >= 0.5]
        reached = [other for other in reached if not other.crowd] or reached
        most = max((compute_obvious_overlap(thing, other) for other in reached), default=0.0)
        names = [other.name for other in reached if compute_obvious_overlap(thing, other) == most]
        name = thing.name if thing.name in names or not names else names[0]
        renamed.append(_with(thing, name=name))
    return renamed


def choose_obvious_masks(said: Sequence[Annotation], real: Sequence[Annotation]) -> list[Annotation]:
    """Give each prediction the best mask that there is for the true instance of its name that it is near."""
    changed = []
    for thing in said:
        own = [other for other in real if other.name == thing.name]
        solid = [other for other in own if not other.crowd]
        most = max((compute_obvious_overlap(thing, other) for other in solid), default=0.0)
        lost = any(other.crowd and compute_obvious_overlap(thing, other) >= 0.5 for other in own) and most < 0.5
        mask = thing
        if most >= 0.1 and not lost:
            stands_for = next(other for other in solid if compute_obvious_overlap(thing, other) == most)
            for candidate in said:
                if compute_obvious_overlap(candidate, stands_for) > compute_obvious_overlap(mask, stands_for):
                    mask = candidate
        changed.append(_with(thing, mask=mask))
    return changed


def score_obvious_order(said: Sequence[Annotation], real: Sequence[Annotation]) -> list[Annotation]:
    """Score what is right above all else, the best fitting first; what is not, below, in its order."""
    scores: dict[int, float] = {}
    taken: set[int] = set()
    while True:
        best, pair = 0.0, (-1, -1)
        for p, thing in enumerate(said):
            for n, other in enumerate(real):
                free = p not in scores and n not in taken and thing.name == other.name and not other.crowd
                overlap = compute_obvious_overlap(thing, other) if free else 0.0
                if overlap >= 0.5 and overlap > best:
                    best, pair = overlap, (p, n)
        if pair == (-1, -1):
            break
        scores[pair[0]] = 1.0 + best
        taken.add(pair[1])
    ranked = sorted(range(len(said)), key=lambda p: said[p].score or 0.0)
    below = {p: rank / (len(said) + 1) for rank, p in enumerate(ranked)}
    return [_with(thing, score=scores.get(p, below[p])) for p, thing in enumerate(said)]


def _with(
    thing: Annotation, *, name: str | None = None, mask: Annotation | None = None, score: float | None = None
) -> Annotation:
    shape = _mask(mask or thing)
    return Annotation.of_mask(name or thing.name, shape, thing.score if score is None else score, thing.crowd)
