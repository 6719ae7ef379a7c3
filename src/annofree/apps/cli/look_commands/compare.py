"""``annofree compare``: the same images under several runs."""

from __future__ import annotations

from annofree.apps.cli.options.files import RunImages
from annofree.apps.cli.options.look import ComparedRuns, PageFolder, ShownImages, TruthFile
from annofree.pipelines import compare as pipeline

__all__ = ["compare"]


def compare(
    runs: ComparedRuns, out: PageFolder, truth: TruthFile = None, images: RunImages = None, limit: ShownImages = 24
) -> None:
    """Write a page with the same images under several runs side by side, beside the truth where there is one.

    Instances are drawn where all runs have them, else label maps. Images are matched by file name; those that not all
    runs have are left out, counted and named. Exit code 0: written; 2: the call was wrong.

    Example: annofree compare out-zip out-consensus --truth truth.json --out beside
    """
    done = pipeline.compare(runs, out=out, truth=truth, images=images, limit=limit)
    for line in done.left_out:
        print(f"note: {line}")
    print(f"written: {done.page} ({len(done.shown)} images)")
