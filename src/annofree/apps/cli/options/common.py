"""Options that most commands have: what is written and printed, models and the device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from annofree.apps.cli.help import limit_to

__all__ = [
    "ALLOWED",
    "OUTPUT",
    "Address",
    "Device",
    "Engine",
    "Fresh",
    "Json",
    "License",
    "MaxTier",
    "Quiet",
    "RunFolder",
    "Variant",
    "Workers",
]


OUTPUT = "Output"
ALLOWED = "Licenses and supervision"
MACHINES = "Many machines"

Json = Annotated[bool, typer.Option("--json", help="Print a summary as JSON.", rich_help_panel=OUTPUT)]
Quiet = Annotated[bool, typer.Option(help="Print nothing but errors.", rich_help_panel=OUTPUT)]
Fresh = Annotated[bool, typer.Option(help="Delete the run in the output folder and start again.", rich_help_panel=OUTPUT)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...", rich_help_panel="Method")]
Variant = Annotated[
    str, typer.Option(help="Named settings of the method: default, paper, official, ...", rich_help_panel="Method")
]
Engine = Annotated[
    str,
    typer.Option(
        help="Who does the work: local, this process; ray, workers on many machines or, without --address, on this one.",
        rich_help_panel=MACHINES,
        **limit_to("local", "ray"),
    ),
]
Address = Annotated[str | None, typer.Option(help="The Ray cluster: host:port, or auto.", rich_help_panel=MACHINES)]
Workers = Annotated[
    int | None,
    typer.Option(help="Workers of --engine ray; by default one a GPU, or one for 4 CPUs.", min=1, rich_help_panel=MACHINES),
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
