"""Options of the commands that make pages to look at: explain and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from annofree.apps.cli.help import limit_to
from annofree.apps.cli.options.common import OUTPUT

__all__ = ["ComparedRuns", "OneImage", "OneTask", "PageFolder", "ShownImages", "TruthFile"]

OneImage = Annotated[str, typer.Argument(help="The image.", metavar="IMAGE", show_default=False)]
OneTask = Annotated[
    str | None,
    typer.Option(
        help="instance or semantic; by default what the method can do, instances first.",
        rich_help_panel="Classes and tasks",
        **limit_to("instance", "semantic"),
    ),
]
PageFolder = Annotated[
    Path,
    typer.Option(
        "--out",
        help="The folder of the page: new, empty, or with an earlier page of this kind; not in a run.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
ComparedRuns = Annotated[list[Path], typer.Argument(help="The folders of runs.", metavar="RUN", show_default=False)]
TruthFile = Annotated[Path | None, typer.Option("--truth", help="The truth as a COCO file, or a folder of label maps.")]
ShownImages = Annotated[int, typer.Option("--limit", help="Show the first N images that all runs have.", min=1)]
