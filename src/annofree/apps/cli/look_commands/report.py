"""``annofree report``: a run as a page to look at."""

from __future__ import annotations

from annofree.apps.cli.options.common import RunFolder
from annofree.apps.cli.options.files import Crops, ReportFolder, RunImages, Sheets, Shown
from annofree.pipelines import report as pipeline

__all__ = ["report"]


def report(
    run: RunFolder,
    out: ReportFolder = None,
    images: RunImages = None,
    shown: Shown = 12,
    crops: Crops = 24,
    sheets: Sheets = 200,
) -> None:
    """Write a page with a run's images and what was found in them, counts, scores, instances by class, failures, provenance.

    A slider leaves out what scores less, a filter chooses classes, a click enlarges. It needs no network: open index.html.
    Exit code 0: written; 2: the call was wrong, nothing was written.

    Example: annofree report out
    """
    print(f"written: {pipeline.report(run, out, images=images, shown=shown, crops=crops, sheets=sheets)}")
