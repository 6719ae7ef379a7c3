"""Options that most commands have: what is written and printed, models and the device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from annofree.apps.cli.help import limit_to

__all__ = ["ALLOWED", "OUTPUT", "Device", "Fresh", "Json", "License", "MaxTier", "Quiet", "RunFolder", "Variant"]


OUTPUT = "Output"
ALLOWED = "Licenses and supervision"

Json = Annotated[bool, typer.Option("--json", help="Print a summary as JSON.", rich_help_panel=OUTPUT)]
Quiet = Annotated[bool, typer.Option(help="Print nothing but errors.", rich_help_panel=OUTPUT)]
Fresh = Annotated[bool, typer.Option(help="Delete the run in the output folder and start again.", rich_help_panel=OUTPUT)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...", rich_help_panel="Method")]
Variant = Annotated[
    str, typer.Option(help="Named settings of the method: default, paper, official, ...", rich_help_panel="Method")
]
MaxTier = Annotated[
    str | None,
    typer.Option(help="Refuse models of more supervision.", rich_help_panel=ALLOWED, **limit_to("S0", "S1", "S2", "S3")),
]
License = Annotated[
    str | None,
    typer.Option(
        "--license",
        "--licence",
        help="Refuse models of other licenses: permissive, or SPDX identifiers joined by commas.",
        rich_help_panel=ALLOWED,
    ),
]
RunFolder = Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN", show_default=False)]
