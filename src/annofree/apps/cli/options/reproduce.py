"""Options of ``annofree reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["DataFolder", "FiguresFolder", "Limit", "Only", "RecipeDevice", "RecipeFile"]

RecipeFile = Annotated[
    Path, typer.Argument(help="A recipe, such as recipes/emoji/zip.toml.", metavar="RECIPE", show_default=False)
]
FiguresFolder = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Write figures, predictions and what is made to this folder; a run that stopped there is resumed."
    ),
]
Limit = Annotated[int | None, typer.Option(help="Take only the first N images of each group; compares nothing.", min=1)]
Only = Annotated[list[str] | None, typer.Option(help="Take only this run; may be given several times.")]
DataFolder = Annotated[
    Path | None, typer.Option("--data", help="For a paper's recipe: the folder of its data sets.", envvar="ANNOFREE_DATA")
]
RecipeDevice = Annotated[str, typer.Option("--device", help="For what is made, and for a paper's recipe: auto, cpu, cuda, ...")]
