"""From a ranking to an answer: what a method is not sure of, and what it says twice, is not handed to a person.

    ranking -> named again by competition (verification) -> overlaps settled -> floor -> at most so many

AP wants every ranked guess, a person wants the right ones; so methods rank, and a policy decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from annofree.detections.nms import Overlaps
from annofree.detections.verification import Calibration, Naming, compute_signals, measure_geometry, pick_best_rows
from annofree.errors import InputError
from annofree.structures import Detections, FloatArray, IntArray

__all__ = ["OutputPolicy", "compute_ranking_signals", "name_detections", "verify_detections"]


@dataclass(frozen=True)
class OutputPolicy:
    """Which of the ranked detections are the answer; the defaults hand over the ranking as it is.

    Raises InputError for a floor outside of 0 .. 1 and for no detections per image.
    """

    # whether every candidate is named again, by competition of all names and distractors
    verify: bool = False
    # how names compete, where they do
    naming: Naming = field(default_factory=Naming)
    # standard deviations by which a name stands out among all that compete, in the whole image or in its best cells, from
    # which it may be in an image at all; what stands out less only competes there.  None: the method decides
    presence: float | None = None
    # how likely a candidate is right; none: its share times its own score, which is no probability
    calibration: Calibration | None = None
    # which of two that overlap stays
    overlaps: Overlaps = field(default_factory=Overlaps)
    # the least score that is told
    floor: float = 0.0
    # detections per image at most, the strongest
    most: int = 100

    def __post_init__(self) -> None:
        if not (0 <= self.floor <= 1 and self.most >= 1):
            raise InputError(f"expected a floor from 0 to 1 and at least one detection, got {self.floor} and {self.most}")

    def decide(self, ranking: Detections, told: int | None = None) -> Detections:
        """Settle overlaps of a ranking that is scored already, then cut it at the floor and at the most.

        The names from ``told`` on are distractors: their instances settle overlaps with the others, and then go.

        >>> full = np.ones((2, 2, 2), bool)
        >>> twice = Detections.from_masks(full, [0, 0], [0.9, 0.6], ["cat"])
        >>> len(OutputPolicy(overlaps=Overlaps(within=0.5)).decide(twice)), len(OutputPolicy(floor=0.7).decide(twice))
        (1, 1)
        """
        decided = ranking[self.select(ranking, told)]
        return decided if told is None else replace(decided, names=decided.names[:told])

    def select(self, ranking: Detections, told: int | None = None) -> IntArray:
        """Which of the ranked detections ``decide`` hands over, (M) indices in their order."""
        rows = self.overlaps.select(ranking)
        rows = rows[ranking.scores[rows] >= self.floor]
        if told is not None:
            rows = rows[ranking.class_ids[rows] < told]
        return rows[: self.most]

    def explain(self, ranking: Detections, told: int | None = None) -> list[str]:
        """Why ``decide`` drops each of the ranked detections, an empty text for those that it hands over.

        >>> twice = Detections.from_masks(np.ones((2, 2, 2), bool), [1, 0], [0.9, 0.6], ["cat", "wall"])
        >>> OutputPolicy(floor=0.7).explain(twice, told=1)
        ['won by a name that only competes', 'less likely than 0.7']
        """
        reasons = self.overlaps.explain(ranking)
        for k, (score, name) in enumerate(zip(ranking.scores.tolist(), ranking.class_ids.tolist(), strict=True)):
            if not reasons[k] and told is not None and name >= told:
                reasons[k] = "won by a name that only competes"
            elif not reasons[k] and score < self.floor:
                reasons[k] = f"less likely than {self.floor:g}"
        for k in [k for k, why in enumerate(reasons) if not why][self.most :]:
            reasons[k] = f"beyond the {self.most} strongest"
        return reasons


def verify_detections(
    ranking: Detections, features: Tensor, words: Tensor, presence: Tensor, policy: OutputPolicy, names: Sequence[str]
) -> Detections:
    """Name each detection (N) again by its ``features`` (N, D), and score it; the likeliest first.

    ``words`` (R, D) are the features of all ``names`` that compete, those asked for and then the distractors; ``presence`` (R)
    likewise.
    """
    again, _ = name_detections(ranking, features, words, presence, policy, names)
    return again[np.argsort(-again.scores, kind="stable")]


def name_detections(
    ranking: Detections, features: Tensor, words: Tensor, presence: Tensor, policy: OutputPolicy, names: Sequence[str]
) -> tuple[Detections, Tensor]:
    """Likewise, in the order that they came in, and with the shares (N, R) of all names."""
    shares = policy.naming.compute_shares(features, words)
    if not len(ranking):
        return replace(ranking, names=tuple(names)), shares
    if policy.calibration is None:
        scores: FloatArray = shares.max(1).values.cpu().numpy() * ranking.scores
    else:
        scores = policy.calibration.predict(compute_ranking_signals(ranking, features, words, shares, presence))
    return replace(ranking, names=tuple(names), class_ids=pick_best_rows(shares), scores=scores.astype(np.float32)), shares


def compute_ranking_signals(
    ranking: Detections, features: Tensor, words: Tensor, shares: Tensor, presence: Tensor
) -> FloatArray:
    """The signals (N, S) of the detections of a ranking, whose scores stand for their quality."""
    drawn = np.stack([ranking.scores, np.ones_like(ranking.scores)], 1)
    return compute_signals(features, words, shares, presence, drawn, measure_geometry(ranking.rles, ranking.size))
