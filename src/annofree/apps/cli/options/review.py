"""Options of ``annofree review``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Against", "LeastScore", "Look", "ReviewFolder", "Risk", "Worst"]

Worst = Annotated[int, typer.Option(help="Images to list and to write.", min=1)]
ReviewFolder = Annotated[Path | None, typer.Option("--out", help="The folder to write to; else review/ in the run.")]
Risk = Annotated[
    str | None, typer.Option(help="What to rank by; else the best that there is: see docs/review.md.", show_default=False)
]
LeastScore = Annotated[float, typer.Option("--min-score", help="Leave weaker instances out, as you would when you use them.")]
Look = Annotated[
    str | None, typer.Option(help="Ask the run's models again of changed images: flip, shift, scale, joined by commas.")
]
Against = Annotated[Path | None, typer.Option(help="Another run of the same images, by another method, variant or model.")]
