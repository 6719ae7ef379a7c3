"""Options of ``annofree pseudo-label``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Across",
    "Agnostic",
    "DropEmpty",
    "Inside",
    "InstanceRun",
    "Keep",
    "LabelFolder",
    "LabelInfo",
    "LabelSheet",
    "Merge",
    "MergeIou",
    "MinArea",
    "MinScore",
    "Most",
    "PerClass",
    "Rare",
    "RunImages",
    "Within",
]

_BY_CLASS = 'A number for all classes, or "NAME=NUMBER" for one; may be given several times.'

InstanceRun = Annotated[Path, typer.Argument(help="The folder of a run, with instances.", metavar="RUN", show_default=False)]
LabelFolder = Annotated[
    Path, typer.Option("--out", help="The folder to write labels.json and sheet.jpg to.", show_default=False)
]
MinScore = Annotated[list[str] | None, typer.Option(help=f"Minimum score, else 0. {_BY_CLASS}")]
Keep = Annotated[
    list[str] | None, typer.Option(help=f"Best share of a class's instances over the minimum score, else 1. {_BY_CLASS}")
]
Agnostic = Annotated[bool, typer.Option(help='Name all instances "object" before duplicates are removed.')]
MinArea = Annotated[int, typer.Option(help="Minimum mask area in pixels.", min=1)]
Within = Annotated[float, typer.Option(help="Mask-NMS IoU threshold within a class; 1 disables.", min=0, max=1)]
Across = Annotated[float, typer.Option(help="Mask-NMS IoU threshold across classes; 1 disables.", min=0, max=1)]
Inside = Annotated[
    float,
    typer.Option(
        help="Drop a mask when more than this fraction of it lies inside a larger mask of its class; 1 disables.",
        min=0,
        max=1,
    ),
]
Most = Annotated[int | None, typer.Option(help="Maximum number of instances per image, the best.", min=1)]
PerClass = Annotated[int | None, typer.Option(help="Maximum number of instances per class over all images, the best.", min=1)]
Rare = Annotated[
    float,
    typer.Option(
        help="Repeat images of classes in less than this share f of the images sqrt(RARE / f) times (LVIS: 0.001); 0: none.",
        min=0,
        max=1,
    ),
]
DropEmpty = Annotated[bool, typer.Option(help="Leave out images without a label.")]
Merge = Annotated[
    Path | None,
    typer.Option(help="Labels of an earlier round; those that no new label overlaps are kept.", metavar="LABELS"),
]
MergeIou = Annotated[
    float, typer.Option(help="Keep earlier labels whose mask IoU with every new one is under this.", min=0, max=1)
]
RunImages = Annotated[Path | None, typer.Option("--images", help="The folder of the images, if the run's was moved.")]
LabelSheet = Annotated[int, typer.Option("--sheet", help="Labeled images on the contact sheet; 0 for no sheet.", min=0)]
LabelInfo = Annotated[bool, typer.Option("--json", help="Print what labels.json says of itself instead of a table.")]
