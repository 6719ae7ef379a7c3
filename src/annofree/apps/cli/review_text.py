"""What ``annofree review`` prints: the riskiest images, with the reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from annofree.io.text import clean_text

if TYPE_CHECKING:
    from annofree.evaluation.review.rank import Review

__all__ = ["review_text"]

_LISTED = 10


def review_text(review: Review) -> str:
    """List the first images of a review, and say where all of them are."""
    from annofree.evaluation.review.rank import list_reasons
    from annofree.evaluation.review.risk import MEANINGS

    lines = [f"the riskiest {len(review.worst)} of {review.pictures} images by {review.by} ({MEANINGS[review.by]}):"]
    for number, ranked in enumerate(review.worst[:_LISTED], 1):
        name = clean_text(ranked.answer.image["file_name"])
        lines.append(f"{number:4} {ranked.risk:.2f} {name}: {'; '.join(list_reasons(ranked, review.by))}")
    lines += [f"... {len(review.worst) - _LISTED} more"] if len(review.worst) > _LISTED else []
    lines += [f"{len(review.unseen)} images could not be opened again"] if review.unseen else []
    return "\n".join([*lines, f"written: {review.folder}/review.html, review.json, annotations.json, overlays/"])
