"""The images of a run that are the likeliest to be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from annofree.io.arguments import check_range
from annofree.io.callbacks import Callbacks

if TYPE_CHECKING:
    from annofree.evaluation.review.rank import Review

__all__ = ["review"]


def review(
    run: str | Path,
    *,
    worst: int = 100,
    out: str | Path | None = None,
    risk: str | None = None,
    min_score: float = 0.0,
    look: str | Sequence[str] | None = None,
    against: str | Path | None = None,
    images: str | Path | None = None,
    device: str = "auto",
    callbacks: Callbacks = Callbacks(),
) -> Review:
    """Rank the images of a run by the risk that they are wrong, without any label, and write the ``worst`` for people.

    ``out`` is the folder to write to, else ``review`` in the run: review.html, review.json, and the images as COCO with
    overlays.  ``risk`` is what to rank by, else the best that there is; ``min_score`` leaves weaker instances out.  ``look``
    asks the run's models again of changed images: flip, shift, scale, a list or joined by commas.  ``against`` is another run
    of the same images.  ``images`` is the folder of images, else the one that the run was given.  Raises InputError for a
    folder that is no run, and for a risk or a view that there is not.

    >>> review("examples")
    Traceback (most recent call last):
    annofree.errors.InputError: examples is not a run folder (no run.json); pass the --out of `annofree segment`
    """
    check_range("worst", worst, 1)
    check_range("min_score", min_score, 0, 1)
    from annofree.runs.store.summary import read_about

    folder = Path(run)
    about = read_about(folder)  # before anything heavy is imported
    from annofree.evaluation.review.page import write_review_page
    from annofree.evaluation.review.rank import rank_images, read_instances_by_name, write_review
    from annofree.runs.images import find_image_opener
    from annofree.runs.store.finals import require_unchanged

    again = None
    if look is not None:
        from annofree.pipelines.look_again import look_again

        least = max(min_score, float((about.get("settings") or {}).get("min_score") or 0.0))
        again = look_again(look, folder, about, images, device, least)
    if against is not None:
        require_unchanged(Path(against), "annotations.json")
    other = None if against is None else read_instances_by_name(Path(against) / "annotations.json", min_score)
    ranked = rank_images(
        folder, worst, by=risk, min_score=min_score, look=again, against=other, on_progress=callbacks.on_progress
    )
    written = replace(ranked, folder=folder / "review" if out is None else Path(out))
    rows = write_review(written, folder, written.folder)
    write_review_page(written, folder, written.folder, rows, find_image_opener(folder, images))
    return written
