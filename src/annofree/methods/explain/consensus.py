"""The steps of the consensus, as drawings: proposals, and the names that win them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from annofree.methods.consensus import Consensus, ConsensusEncoding
from annofree.methods.explain.subject import Subject, format_counts
from annofree.render.steps_page import Drawing, Step
from annofree.structures import Detections

__all__ = ["explain_consensus"]

_DETECTOR = 2  # the column of ``drawn`` that says whether a detector found a candidate


def explain_consensus(method: Consensus, subject: Subject) -> Iterator[Step]:
    """Draw the proposals, and how names compete for them."""
    encoding: ConsensusEncoding = subject.encoding
    candidates = method.list_candidates(encoding)
    yield Step(
        "Proposals",
        f"The {len(candidates)} surest masks of all proposers, which have no name yet; several may be of one thing.",
        tuple(_proposals(subject, candidates, encoding.drawn[:, _DETECTOR].numpy() > 0)),
    )
    named = method.verify(encoding, subject.asked, subject.others)
    asked = named.class_ids < len(subject.asked)
    words = (
        f"All names compete for what CLIP sees of each mask, {len(subject.asked)} asked for and "
        f"{len(named.names) - len(subject.asked)} others; the score is how likely mask and name are right."
    )
    drawings = [subject.draw(named[asked], f"names asked for: {format_counts(named[asked])}")]
    if not asked.all():
        drawings.append(subject.draw(named[~asked], f"names that only compete: {format_counts(named[~asked])}"))
    yield Step("Names", words, tuple(drawings))


def _proposals(subject: Subject, candidates: Detections, detected: np.ndarray) -> Iterator[Drawing]:
    for rows, who in ((~detected, "SAM"), (detected, "a trained detector")):
        if rows.any():
            yield subject.draw_nameless(candidates[rows], f"{int(rows.sum())} by {who}")
