"""``annofree report``: a run as a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from annofree.runs.report import Opener
    from annofree.structures import Image

__all__ = ["opener", "report"]


def report(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="The folder to write to; else report/ in the run, so that they move together.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="The folder of images, to draw instances over; else that of the run, or its overlays."),
    ] = None,
    shown: Annotated[
        int,
        typer.Option(
            help="Images shown as surest, least sure and emptiest, each; a run of up to three times as many is shown whole.",
            min=0,
        ),
    ] = 12,
    crops: Annotated[int, typer.Option(help="Instances shown of each class.", min=1)] = 24,
    sheets: Annotated[int, typer.Option(help="Classes whose instances are shown, the most frequent.", min=0)] = 200,
) -> None:
    """Write a page with a run's images and what was found in them, counts, scores, instances by class, failures, provenance.

    A slider leaves out what scores less, a filter chooses classes, a click enlarges. It needs no network: open index.html.
    Exit code 0: written; 2: the call was wrong, nothing was written.

    Example: annofree report out
    """
    from annofree.runs.report import write_report
    from annofree.runs.store.summary import pictures_root

    folder = images or pictures_root(run)
    opened = opener(folder) if folder is not None else None
    place = write_report(run, out or run / "report", shown=shown, crops=crops, sheets=sheets, picture=opened)
    print(f"written: {place}")


def opener(folder: Path) -> Opener:
    """Open pictures below a folder by the names that a run has for them; raises InputError when it is no folder."""
    from annofree.errors import InputError
    from annofree.io.image_sources import read_place
    from annofree.io.images import pillow_quiet

    if not folder.is_dir():
        raise InputError(f"expected the folder of pictures that the run was given, got {folder}; check --images")

    def opened(name: str) -> Image:
        with pillow_quiet():
            return read_place(str(folder / name), name)

    return opened
