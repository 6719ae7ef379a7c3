"""Options of the commands of ``annofree models``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["BundleFile", "KnownName", "Markdown", "ModelName", "ModelNames", "Renew", "SomeNames", "WeightsSource"]

Markdown = Annotated[bool, typer.Option("--markdown", help="Print the page docs/models.md.")]
ModelName = Annotated[str, typer.Argument(help="A model or a preset.", metavar="NAME")]
ModelNames = Annotated[list[str], typer.Argument(help="Models or presets, as `list` shows them.", metavar="NAME")]
SomeNames = Annotated[list[str] | None, typer.Argument(help="All on this machine, unless named.", metavar="NAME")]
Renew = Annotated[bool, typer.Option("--renew", help="Re-pin to the hub's current revision, even if the files changed.")]
BundleFile = Annotated[Path, typer.Option("--out", help="The tar file to write.", show_default=False)]
WeightsSource = Annotated[
    Path, typer.Option("--from", help="A bundle, a model's folder or published file.", show_default=False)
]
KnownName = Annotated[str | None, typer.Option("--name", help="Which known model a folder without card.json, or a file, is.")]
