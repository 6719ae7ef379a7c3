"""Options of ``name``: whose masks, what CLIP sees of them, and how they are scored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from annofree.apps.cli.help import limit_to

__all__ = ["ImageFolder", "Look", "Masks", "Refine", "Score"]

_MASKS = "Masks"

Masks = Annotated[
    Path, typer.Argument(help="The folder of a run with instances, or a COCO file.", metavar="MASKS", show_default=False)
]
ImageFolder = Annotated[
    Path | None,
    typer.Option("--images", help="The folder of the images; of a run, if it was moved.", rich_help_panel=_MASKS),
]
Look = Annotated[
    str,
    typer.Option(
        help="What CLIP sees of a mask: the crop of its box, the same with all outside of the mask blanked, or the box in one "
        "pass over the image (pooled).",
        rich_help_panel=_MASKS,
        **limit_to("box", "masked", "pooled"),
    ),
]
Refine = Annotated[
    str,
    typer.Option(
        help="Let SAM draw each mask anew: by its box, or then again by the box of what it drew and the center of that.",
        rich_help_panel=_MASKS,
        **limit_to("none", "box", "box+point"),
    ),
]
Score = Annotated[
    str,
    typer.Option(
        help="The geometric mean of a mask's own score and its name's probability, or its own score alone.",
        rich_help_panel=_MASKS,
        **limit_to("geometric", "own"),
    ),
]
