"""Whether a round helped, told without a label, on images that no detector was trained on.

What answers have in common with those to mirrored images, and with the round before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from annofree.evaluation.metrics.answer import match_answers
from annofree.evaluation.review.consistency_views import VIEWS
from annofree.ops.rle import compute_rle_ious
from annofree.protocols import Segmenter
from annofree.runs.store.reader import StoredRun
from annofree.structures import Classes, Detections, Image

__all__ = [
    "RoundScores",
    "choose_best",
    "describe_round",
    "explain_end",
    "hold_out",
    "measure_agreement",
    "measure_stability",
    "name_round",
    "read_answers",
]

_NAMES = ("the method alone", "the round before")
_SHARE, _MOST, _LEAST = 0.1, 60, 20
_WORSE, _FEWER, _SAME = 0.05, 0.98, 0.95  # of stability, of what is right by the scores, and of agreement


@dataclass(frozen=True)
class RoundScores:
    """What is known of a round's answer on the held-out images without a label; fractions in 0 .. 1, None if undefined.

    ``instances`` of all images from the floor on; ``expected`` of them to be right, the sum of their scores, where these are
    calibrated; ``stability``, F1 between the answers to an image and to its mirror image; ``agreement``, F1 with the round
    before.
    """

    instances: int
    expected: float
    stability: float | None
    agreement: float | None = None


def hold_out(ids: Sequence[str]) -> list[str]:
    """Choose the images that no detector is trained on: a tenth by the checksum of their names, 60 at most.

    Of less than 20 images none is spared.

    >>> len(hold_out([f"{k}.jpg" for k in range(100)])), hold_out(["a.jpg", "b.jpg"])
    (10, [])
    """
    if len(ids) < _LEAST:
        return []
    ordered = sorted(ids, key=lambda name: sha256(name.encode(errors="surrogateescape")).digest())
    return sorted(ordered[: min(_MOST, round(_SHARE * len(ids)))])


def read_answers(run: Path, floor: float, images: Path | None = None) -> tuple[dict[str, Detections], float]:
    """The instances of each image of a run from a floor on, by file name, and the sum of their scores.

    ``images`` is where its images are, if not where it had them.
    """
    answers = {name: found[found.scores >= floor] for name, found in StoredRun.read(run, images).read_images()}
    return answers, float(sum(found.scores.sum() for found in answers.values()))


def measure_agreement(ours: Mapping[str, Detections], theirs: Mapping[str, Detections], names: Collection[str]) -> float | None:
    """F1 between two answers to the images ``names``, at a mask IoU of 0.5 and by name; None where there is nothing."""
    return _score_pairs((ours[name], theirs[name]) for name in names if name in ours and name in theirs)


def measure_stability(method: Segmenter, images: Iterable[Image], classes: Classes, floor: float) -> float | None:
    """F1 between the answers to images and to their mirror images; None where there is nothing in any."""
    view = VIEWS["flip"]

    def ask(image: Image) -> tuple[Detections, Detections]:
        straight, mirrored = (
            found[found.scores >= floor]
            for found in (method.instances(one, classes) for one in method.encode([image, view.look(image)]))
        )
        back = view.back(mirrored.masks, image.size)
        return straight, Detections.from_masks(back, mirrored.class_ids, mirrored.scores, mirrored.names)

    return _score_pairs(map(ask, images))


def _score_pairs(pairs: Iterable[tuple[Detections, Detections]]) -> float | None:
    """F1 over all pairs of answers together."""
    matched = total = 0
    for first, second in pairs:
        total += len(first) + len(second)
        if len(first) and len(second):
            first = first[np.argsort(-first.scores, kind="stable")]
            same = np.equal.outer(first.labels, second.labels)
            hits, _ = match_answers(compute_rle_ious(first.rles, second.rles), same, np.zeros(len(second), bool))
            matched += int(hits.sum())
    return 2 * matched / total if total else None


def explain_end(rounds: Sequence[Mapping[str, Any]]) -> str | None:
    """Why no round follows the last of several, the first of which is the method alone; None where one may."""
    number, before, now = len(rounds) - 1, rounds[-2], rounds[-1]
    if not now["instances"]:
        return f"round {number} found nothing that it is sure of"
    if _is_worse(now, before):
        how = "right less often by its scores" if now.get("calibrated") else "less alike in mirrored images"
        return f"round {number} is {how} than {_NAMES[number > 1]}"
    if now["agreement"] is not None and now["agreement"] >= _SAME:
        return f"round {number} changed nearly nothing"
    return None


def choose_best(rounds: Sequence[Mapping[str, Any]]) -> int:
    """The round that is handed over: the last one that does not answer mirrored images less alike than the one before it.

    One that finds nothing after one that found something is worse.

    >>> choose_best([{"stability": s, "instances": 9} for s in (0.6, 0.7, 0.6)])
    1
    """
    best = 0
    for number in range(1, len(rounds)):
        if _is_worse(rounds[number], rounds[best]):
            break
        best = number
    return best


def _is_worse(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    if not now["instances"]:
        return bool(before["instances"])
    if now.get("calibrated") and before.get("calibrated"):
        return bool(now["expected"] < _FEWER * before["expected"])
    return now["stability"] is not None and before["stability"] is not None and now["stability"] < before["stability"] - _WORSE


def name_round(number: int) -> str:
    """What a round is called; round 0 is the method alone."""
    return f"round {number}" if number else _NAMES[0]


def describe_round(number: int, row: Mapping[str, Any]) -> str:
    """A round in a line."""
    said = [f"{row['instances']:,} instances"]
    said += [f"{row['expected']:,.0f} of them right by their scores"] if row.get("calibrated") else []
    for key, words in (("stability", "alike in mirrored images"), ("agreement", "alike with the round before")):
        said += [f"{words} {100 * row[key]:.1f} %"] if row[key] is not None else []
    return f"{name_round(number)}: {', '.join(said)}"
