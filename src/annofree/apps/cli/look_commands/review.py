"""``annofree review``: which images of a run to check first."""

from __future__ import annotations

from annofree.apps.cli.options.common import Device, Quiet, RunFolder
from annofree.apps.cli.options.files import RunImages
from annofree.apps.cli.options.review import Against, LeastScore, Look, ReviewFolder, Risk, Worst
from annofree.apps.cli.process import start_command_clock
from annofree.apps.cli.progress import show_progress
from annofree.apps.cli.review_text import review_text
from annofree.pipelines import review as pipeline

__all__ = ["review"]


def review(
    run: RunFolder,
    worst: Worst = 100,
    out: ReviewFolder = None,
    risk: Risk = None,
    min_score: LeastScore = 0.0,
    look: Look = None,
    against: Against = None,
    images: RunImages = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """List the images of a run that are the likeliest to be wrong, the worst first, without any label.

    Writes review.html, a page to go through with j and k, review.json, with the reasons, and those images as COCO with
    overlays; the folder can be exported and reported as a run can. Exit code 0: written; 2: the call was wrong.

    Example: annofree review out --worst 100
    """
    with show_progress("images", quiet, clock=None if look is None else start_command_clock()) as show:
        found = pipeline.review(
            run,
            worst=worst,
            out=out,
            risk=risk,
            min_score=min_score,
            look=look,
            against=against,
            images=images,
            device=device,
            callbacks=show.callbacks,
        )
    if not quiet:
        print(review_text(found))
