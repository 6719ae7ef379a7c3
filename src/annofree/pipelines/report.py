"""A run as a page to look at."""

from __future__ import annotations

from pathlib import Path

from annofree.io.arguments import check_range

__all__ = ["report"]


def report(
    run: str | Path,
    out: str | Path | None = None,
    *,
    images: str | Path | None = None,
    shown: int = 12,
    crops: int = 24,
    sheets: int = 200,
) -> Path:
    """Write a page with a run's images and what was found in them, and return its path.

    ``out`` is the folder to write to, else ``report`` in the run; ``images`` the folder of its images, else the one that the
    run was given.  ``shown`` images are the most certain, the least certain and the emptiest, each; ``crops`` instances are
    shown of each of the ``sheets`` most frequent classes.  Raises InputError for a folder that is no run, and for an ``out``
    that holds something else.

    >>> report("examples")
    Traceback (most recent call last):
    annofree.errors.InputError: examples is not a run folder (no run.json); pass the --out of `annofree segment`
    """
    for name, value, least in (("shown", shown, 0), ("crops", crops, 1), ("sheets", sheets, 0)):
        check_range(name, value, least)
    from annofree.runs.images import find_image_opener
    from annofree.runs.store.summary import read_about

    folder = Path(run)
    read_about(folder)  # before anything heavy is imported
    opener = find_image_opener(folder, images)
    from annofree.runs.write_report import write_report

    place = folder / "report" if out is None else Path(out)
    return write_report(folder, place, shown=shown, crops=crops, sheets=sheets, image=opener)
