"""HTML page of a review: the riskiest images with reasons and keyboard navigation.

OUT
├── review.html
└── images/   the images, large and small
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from annofree.evaluation.review.rank import Ranked, Review, list_reasons
from annofree.evaluation.review.risk import MEANINGS, Part
from annofree.io.atomic import write_atomic
from annofree.render.html import assign_class_colors, format_count, render_template
from annofree.render.page_images import ImageFiles, Opener, ShownImage, link_to, open_overlay
from annofree.render.page_shapes import MOST_SHAPES, limit_points

__all__ = ["write_review_page"]

_GENERATOR = "annofree review"
_MOST = 500  # images on the page
_OURS = re.compile(r"\d{4,}(-small)?\.jpg")


@dataclass(frozen=True)
class _Shown:
    """One image of the page, as used by the template."""

    rank: int
    image: ShownImage
    risk: float
    reasons: Sequence[str]
    parts: Mapping[str, Part]
    unseen: str


def write_review_page(
    review: Review, run: Path, out: Path, rows: Sequence[Mapping[str, Any]], image: Opener | None = None
) -> Path:
    """Write the images of a review to ``out``/review.html, in its order, and return that; an earlier page is replaced.

    ``rows`` are what ``write_review`` returned.  Images are what ``image`` opens; without it, or where it raises InputError,
    the overlays of ``run``.  Raises InputError where a folder cannot be made.
    """
    shown = review.worst[:_MOST]
    for left in (out / "images").glob("[0-9]*.jpg"):
        if _OURS.fullmatch(left.name):
            left.unlink()
    names = list(dict.fromkeys(str(category["name"]) for category in review.categories))
    points = limit_points(sum(min(MOST_SHAPES, len(ranked.answer.things)) for ranked in shown))
    files = ImageFiles(out, image, assign_class_colors(names), points)
    pairs = zip(shown, rows[:_MOST], strict=True)
    drawn = [_shown(place, ranked, review, run, out, row, files) for place, (ranked, row) in enumerate(pairs, 1)]
    text = render_template(
        "review.html",
        generator=_GENERATOR,
        title=f"The riskiest {len(review.worst):,} of {format_count(review.pictures, 'image')}",
        names=names,
        script=True,
        index={name: k for k, name in enumerate(names)},
        by=review.by,
        meaning=MEANINGS[review.by],
        min_score=review.min_score,
        more=len(review.worst) - len(shown),
        ranked=drawn,
    )
    write_atomic(out / "review.html", lambda path: path.write_text(text, encoding="utf-8", errors="replace"))
    return out / "review.html"


def _shown(
    place: int, ranked: Ranked, review: Review, run: Path, out: Path, row: Mapping[str, Any], files: ImageFiles
) -> _Shown:
    image = ranked.answer.image
    name, size = str(image["file_name"]), (int(image["height"]), int(image["width"]))
    overlay = partial(open_overlay, run, str(image.get("overlay") or ""))
    link = link_to(out / str(row["overlay"]), out, out) if row.get("overlay") else ""
    drawn = files.show(name, size, ranked.answer.things, overlay=overlay, link=link)
    return _Shown(place, drawn, ranked.risk, list_reasons(ranked, review.by), ranked.parts, review.unseen.get(name, ""))
