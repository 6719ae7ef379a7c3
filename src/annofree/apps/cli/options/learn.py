"""Options of ``annofree learn``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["LearnBank", "LearnConfig", "LearnOut", "LearnSteps", "LeastLabels", "MostMinutes", "Rounds"]

_LEARN = "Learning"

LearnOut = Annotated[
    Path, typer.Option("--out", help="Folder of all rounds, labels and the detector; resumed.", show_default=False)
]
Rounds = Annotated[int, typer.Option(help="Detectors trained one after the other, at most.", min=1, rich_help_panel=_LEARN)]
MostMinutes = Annotated[
    float, typer.Option(help="What all of it may take; training takes as many steps as fit.", min=0, rich_help_panel=_LEARN)
]
LearnSteps = Annotated[int | None, typer.Option(help="Steps of a round, whatever the minutes.", min=1, rich_help_panel=_LEARN)]
LeastLabels = Annotated[
    int, typer.Option(help="Labels from which a name is not told to have few.", min=1, rich_help_panel=_LEARN)
]
LearnBank = Annotated[
    bool | None,
    typer.Option(
        "--bank/--no-bank",
        help="Let what is told surely in a round name and weigh what looks like it; by default where that was fitted.",
        rich_help_panel=_LEARN,
        show_default=False,
    ),
]
LearnConfig = Annotated[
    Path | None,
    typer.Option("--config", help="TOML: fields of a detector's recipe over the preset's.", rich_help_panel=_LEARN),
]
