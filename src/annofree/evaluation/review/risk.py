"""How likely an image's answer is wrong, told from the answer alone: no label is asked.

Every part is in 0 .. 1, higher is worse, with a reason in words.  From the stored predictions alone:

    score      1 - mean score: the plain measure that the others have to beat
    margin     how near the best instance is to the weakest that the run kept
    rivals     instances that overlap others of another class, or of a better score, and by how much
    fragments  masks in pieces: the part of a mask outside its largest piece
    overlap    pixels that are claimed more than once
    crowding   many instances for one image, n / (n + 5)
    doubt      1 - mean score x (1 - crowding)

and a second answer for the same image, of a changed view of it (``views``) or of another method, for

    jitter     1 - agreement with the answers for changed views of the image
    against    1 - agreement with the predictions of another run
    joint      1 - mean score x mean agreement with all second predictions

Without stored instances, every part that needs no second prediction is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from annofree.evaluation.metrics.matching import compute_ious, count_changed, measure_agreement
from annofree.formats.annotations import Annotation
from annofree.ops.rle import compute_rle_area, compute_rle_areas, decode_rle, merge_rles

__all__ = ["MEANINGS", "STORED", "Part", "Scale", "compute_joint_risk", "compute_stored_parts", "measure_disagreement"]

MEANINGS: Mapping[str, str] = {
    "score": "1 - mean score",
    "margin": "how near the best instance is to the weakest that the run kept",
    "rivals": "instances that overlap one of another class, by IoU and by how close the two scores are",
    "fragments": "the part of the masks outside their largest pieces",
    "overlap": "the part of the masks' pixels that is claimed more than once",
    "crowding": "n instances count n / (n + 5)",
    "doubt": "1 - mean score x 5 / (n + 5) for n instances",
    "jitter": "1 - agreement with the answers for changed views of the image",
    "against": "1 - agreement with the answer of another run",
    "joint": "1 - mean score x agreement with the second answers",
}
"""What each part is."""

_HALF_CROWDED = 5
_EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Part:
    """One part of a risk: its ``value`` in 0 .. 1 and the ``reason`` in words."""

    value: float
    reason: str


@dataclass(frozen=True)
class Scale:
    """The lowest and the highest score of a run, which margins are measured on."""

    low: float = 0.0
    high: float = 1.0


def compute_stored_parts(things: Sequence[Annotation], scale: Scale) -> dict[str, Part]:
    """Return the parts that need only the stored predictions; all are 1 without instances.

    >>> compute_stored_parts([], Scale())["overlap"]
    Part(value=1.0, reason='nothing was found')
    """
    return {name: of(things, scale) if things else Part(1.0, "nothing was found") for name, of in STORED.items()}


def compute_joint_risk(things: Sequence[Annotation], others: Sequence[Part]) -> Part:
    """Combine score and disagreement: 1 - mean score x mean agreement, with the reason of the worst."""
    worst = max(others, key=lambda part: part.value)
    agreed = 1.0 - float(np.mean([part.value for part in others]))
    return Part(1.0 - _mean_score(things) * agreed, worst.reason)


def measure_disagreement(things: Sequence[Annotation], other: Sequence[Annotation], where: str) -> Part:
    """Return 1 - agreement with another answer for the same image, such as the one ``where`` it is mirrored.

    >>> measure_disagreement([], [], "in the mirror").reason
    'nothing found, and nothing in the mirror'
    """
    value = 1.0 - measure_agreement(things, other)
    if not things:
        return Part(value, f"nothing found, and {f'{len(other)} instances' if other else 'nothing'} {where}")
    lost = count_changed(things, other)
    return Part(value, f"{lost} of {len(things)} instances are not found again {where} (agreement {1 - value:.2f})")


def _mean_score(things: Sequence[Annotation]) -> float:
    return float(np.mean([_sure(t) for t in things])) if things else 0.0


def _score(things: Sequence[Annotation], scale: Scale) -> Part:
    mean = _mean_score(things)
    return Part(1.0 - mean, f"the mean score is {mean:.2f}")


def _margin(things: Sequence[Annotation], scale: Scale) -> Part:
    best = max(things, key=_sure)
    room = scale.high - scale.low
    value = 1.0 - (_sure(best) - scale.low) / room if room > 0 else 1.0
    text = f"the best instance, {best.name} {_sure(best):.2f}, is near the weakest that the run kept, {scale.low:.2f}"
    return Part(float(np.clip(value, 0.0, 1.0)), text)


def _rivals(things: Sequence[Annotation], scale: Scale) -> Part:
    """Mean over instances of the strongest conflict with another class: IoU x lower score / higher score."""
    if len(things) < 2:
        return Part(0.0, "no other class claims the same pixels")
    names, scores = np.array([t.name for t in things], object), np.array([_sure(t) for t in things])
    close = np.minimum.outer(scores, scores) / np.maximum(np.maximum.outer(scores, scores), 1e-9)
    claims = compute_ious(things, things, aware=False) * close * (names[:, None] != names[None])
    own, rival = (int(i) for i in np.unravel_index(np.argmax(claims), claims.shape))
    if not claims[own, rival]:
        return Part(0.0, "no other class claims the same pixels")
    a, b = things[own], things[rival]
    text = f"{a.name} {_sure(a):.2f} and {b.name} {_sure(b):.2f} claim the same pixels"
    return Part(float(claims.max(1).mean()), text)


def _fragments(things: Sequence[Annotation], scale: Scale) -> Part:
    broken = [(_outside(t), t) for t in things if t.rle is not None]
    if not broken:
        return Part(0.0, "no mask is in pieces")
    worst, thing = max(broken, key=lambda pair: pair[0])
    if not worst:
        return Part(0.0, "no mask is in pieces")
    text = f"the mask of {thing.name} {_sure(thing):.2f} is in pieces, {100 * worst:.0f} % of it outside the largest"
    return Part(float(np.mean([v for v, _ in broken])), text)


def _outside(thing: Annotation) -> float:
    """The part of a mask outside its largest piece (8 neighbors)."""
    assert thing.rle is not None  # noqa: S101
    x0, y0, x1, y1 = (int(v) for v in (*np.floor(thing.box[:2]), *np.ceil(thing.box[2:])))
    pieces, count = ndimage.label(decode_rle(thing.rle)[y0:y1, x0:x1], _EIGHT)
    if count < 2:
        return 0.0
    sizes = np.bincount(pieces.ravel())[1:]
    return float(1.0 - sizes.max() / sizes.sum())


def _overlap(things: Sequence[Annotation], scale: Scale) -> Part:
    masks = [t.rle for t in things if t.rle is not None]
    claimed = int(compute_rle_areas(masks).sum()) if len(masks) > 1 else 0
    if not claimed:
        return Part(0.0, "no pixel is claimed twice")
    value = 1.0 - compute_rle_area(merge_rles(masks)) / claimed
    return Part(value, f"{100 * value:.0f} % of what the masks claim is claimed more than once")


def _crowding(things: Sequence[Annotation], scale: Scale) -> Part:
    n = len(things)
    return Part(n / (n + _HALF_CROWDED), f"there are {n} instances")


def _doubt(things: Sequence[Annotation], scale: Scale) -> Part:
    mean, free = _mean_score(things), 1.0 - _crowding(things, scale).value
    return Part(1.0 - mean * free, f"there are {len(things)} instances of mean score {mean:.2f}")


def _sure(thing: Annotation) -> float:
    return 1.0 if thing.score is None else thing.score


STORED: Mapping[str, Callable[[Sequence[Annotation], Scale], Part]] = {
    "score": _score,
    "margin": _margin,
    "rivals": _rivals,
    "fragments": _fragments,
    "overlap": _overlap,
    "crowding": _crowding,
    "doubt": _doubt,
}
"""The parts that need nothing but the stored answer."""
