"""Options of the commands that write files of a run, or of other tools: export, convert, merge and report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from annofree.apps.cli.help import limit_to

__all__ = [
    "FORMATS",
    "Corrections",
    "Crops",
    "Format",
    "From",
    "ImageRoot",
    "Images",
    "NewFolder",
    "OutFolder",
    "ReportFolder",
    "RunFolders",
    "RunImages",
    "Sheets",
    "Shown",
    "SkipUnsupported",
    "Source",
    "To",
]

FORMATS = ("coco", "coco-polygons", "yolo-seg", "yolo-det", "voc", "png", "labelme", "label-studio", "cvat")
_NAMES = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"

Source = Annotated[
    Path, typer.Argument(help="The annotations: a file, or the folder that has them.", metavar="SOURCE", show_default=False)
]
From = Annotated[str, typer.Option("--from", help=f"Their format: {_NAMES}.", show_default=False)]
To = Annotated[str, typer.Option(help="The format to write, one of the same.", show_default=False)]
Format = Annotated[str, typer.Option("--format", help=f"{_NAMES}; see docs/formats.md.", show_default=False)]
NewFolder = Annotated[Path, typer.Option("--out", help="A new or empty folder to write to.", show_default=False)]
OutFolder = Annotated[Path, typer.Option("--out", help="The folder to write to.", show_default=False)]
Images = Annotated[
    str, typer.Option(help="Copy or link the images into the folder, or leave them.", **limit_to("none", "copy", "link"))
]
ImageRoot = Annotated[
    Path | None,
    typer.Option(help="The folder of the images; needed to copy or link them, and for image sizes from YOLO."),
]
Corrections = Annotated[
    bool, typer.Option(help="Take what people corrected on the page, in the place of what the machine said there.")
]
SkipUnsupported = Annotated[
    bool,
    typer.Option(
        "--skip-unsupported",
        help="Pass over objects that cannot be read, such as circles, and name each in the report; else they are refused.",
    ),
]
RunFolders = Annotated[list[Path], typer.Argument(help="The folders of all shards.", metavar="RUN", show_default=False)]
ReportFolder = Annotated[
    Path | None, typer.Option("--out", help="The folder to write to; else report/ in the run, so that they move together.")
]
RunImages = Annotated[
    Path | None,
    typer.Option("--images", help="The folder of the run's images; else the one that it was given, or its overlays."),
]
Shown = Annotated[
    int,
    typer.Option(
        help="Images shown as surest, least sure and emptiest, each; a run of up to three times as many is shown whole.",
        min=0,
    ),
]
Crops = Annotated[int, typer.Option(help="Instances shown of each class.", min=1)]
Sheets = Annotated[int, typer.Option(help="Classes whose instances are shown, the most frequent.", min=0)]
