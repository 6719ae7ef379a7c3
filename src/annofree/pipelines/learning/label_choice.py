"""Which instances of a run become labels: a floor a name, lower for rare ones, and none that crowds out the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from annofree.runs.store.reader import StoredRun
from annofree.training.pseudo_labels.rules import ByClass, LabelRules

__all__ = ["LabelChoice", "choose_labels"]

_CROWD = 3  # times the median of all names' counts that a name may have
_LOWER = 0.5  # of the floor, down to which a rare name's best ones are taken


@dataclass(frozen=True)
class LabelChoice:
    """The ``rules`` for labels to train on, and how many there are by name, at the ``floor`` of the answer and by the rules."""

    rules: LabelRules
    floor: float
    answered: Mapping[str, int]
    chosen: Mapping[str, int]

    def list_few(self, least: int) -> dict[str, int]:
        """The names with less than ``least`` labels, by how many they have."""
        return {name: count for name, count in self.chosen.items() if count < least}


def choose_labels(run: Path, floor: float, least: int, images: Path | None = None) -> LabelChoice:
    """Choose the rules by how many instances of each name a run has.

    From ``floor`` on, an instance is a label.  Of a name with less than ``least`` of them, the best are taken down to half of
    the floor; of a name with more than three times the median of all names, but at least ``least``, the best stay.  ``images``
    is where the images are, if not where the run had them.
    """
    scores = _read_scores(run, images)
    answered = {name: int((own >= floor).sum()) for name, own in scores.items()}
    there = [count for count in answered.values() if count]
    most = max(least, int(np.ceil(_CROWD * float(np.median(there))))) if there else None
    named = {name: _lower_floor(own, floor, least) for name, own in scores.items() if answered[name] < least}
    named = {name: value for name, value in named.items() if value < floor}
    rules = LabelRules(min_score=ByClass(floor, named), across=0.5, inside=0.8, within=0.5, per_class=most, drop_empty=True)
    chosen = {
        name: min(int((own >= named.get(name, floor)).sum()), len(own) if most is None else most)
        for name, own in scores.items()
    }
    return LabelChoice(rules, floor, answered, chosen)


def _lower_floor(scores: np.ndarray, floor: float, least: int) -> float:
    """The score of the ``least``-th best, between half of the floor and the floor."""
    best = np.sort(scores)[::-1][:least]
    return float(np.clip(best[-1], _LOWER * floor, floor)) if len(best) else floor


def _read_scores(run: Path, images: Path | None) -> dict[str, np.ndarray]:
    """The scores of each name's instances, in float64 as they are compared."""
    stored = StoredRun.read(run, images)
    held: dict[str, list[float]] = {name: [] for name in stored.names}
    for _, found in stored.read_images():
        for name, score in zip(found.labels.tolist(), found.scores.tolist(), strict=True):
            held[name].append(score)
    return {name: np.array(own) for name, own in held.items()}
