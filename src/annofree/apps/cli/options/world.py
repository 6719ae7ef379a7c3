"""Options of ``annofree world``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from annofree.apps.cli.help import limit_to

__all__ = ["Font", "HeldOut", "Scenes", "Seed", "Side", "Split", "WorldFolder"]

WorldFolder = Annotated[Path, typer.Option("--out", help="The folder to write to.")]
Scenes = Annotated[int, typer.Option(help="Number of scenes.", min=1)]
Seed = Annotated[int, typer.Option(help="Random seed; the same seed gives the same scenes.", min=0)]
Split = Annotated[str, typer.Option(help="What the scenes show.", **limit_to("plain", "cluttered", "touching"))]
Side = Annotated[int, typer.Option(help="Height and width in pixels.", min=64, max=1024)]
HeldOut = Annotated[float, typer.Option(help="Chance that a look is held out of training.", min=0, max=1)]
Font = Annotated[Path | None, typer.Option(help="NotoColorEmoji.ttf, where the system has none.")]
