"""Several runs of the same images side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from annofree.errors import InputError
from annofree.io.arguments import check_range

if TYPE_CHECKING:
    from annofree.runs.compare_runs import Comparison

__all__ = ["compare"]


def compare(
    runs: Sequence[str | Path],
    *,
    out: str | Path,
    truth: str | Path | None = None,
    images: str | Path | None = None,
    limit: int = 24,
) -> Comparison:
    """Write a page with the first ``limit`` images that all runs have, drawn with what each run found in them.

    Instances are shown where all runs have them; where one has none, the label map of each run that has one is.  ``truth`` is a
    COCO file, or a folder of label maps with classes.json, shown where it has the image, by its file name.  ``images`` is the
    folder of images, else those that the runs were given.  What is left out is counted and named, on the page and in
    the result.

    Raises InputError for less than two things to compare, for a folder that is no run or has neither instances nor label maps,
    for runs without a common image, for images that are not there any more, and for an ``out`` that lies in a run or holds
    something else.

    >>> compare(["examples"], out="page", truth="examples/scenes-truth.json")
    Traceback (most recent call last):
    annofree.errors.InputError: examples is not a run folder (no run.json); pass the --out of `annofree segment`
    """
    check_range("limit", limit, 1, sys.maxsize)
    folders = [Path(run) for run in ([runs] if isinstance(runs, str | Path) else runs)]
    if len(folders) + (truth is not None) < 2:
        raise InputError(f"expected two runs or more, or one and the truth, got {len(folders)}; name another, or pass --truth")
    if twice := [str(folder) for k, folder in enumerate(folders) if folder in folders[:k]]:
        raise InputError(f"expected each run once, got {', '.join(twice)} twice; leave one out")
    from annofree.render.page_folder import check_page_folder
    from annofree.runs.outside import require_outside_runs
    from annofree.runs.store.summary import read_about

    for folder in folders:
        read_about(folder)  # before anything heavy is imported
    require_outside_runs(Path(out))
    check_page_folder(Path(out), "annofree compare", ("images",))
    from annofree.evaluation.metrics.truth import check_truth
    from annofree.formats.coco import CocoFile
    from annofree.runs.compare_runs import list_kinds_shown, read_side, read_truth, read_truth_maps, write_comparison
    from annofree.runs.images import find_image_opener

    shown = [list_kinds_shown(folder) for folder in folders]
    kind = "instance" if all("instance" in kinds for kinds in shown) else "semantic"
    sides = [read_side(folder, kind if kind in kinds else kinds[0]) for folder, kinds in zip(folders, shown, strict=True)]
    if truth is None:
        known = None
    elif Path(truth).is_dir():
        known = read_truth_maps(Path(truth), sides[0][1].listed)
    else:
        known = read_truth(check_truth(CocoFile.read(Path(truth))))
    openers = [opener for folder in folders if (opener := find_image_opener(folder, images)) is not None]
    return write_comparison(sides, Path(out), truth=known, openers=openers, limit=limit)
