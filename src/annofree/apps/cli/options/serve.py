"""Options of ``annofree serve``: what the page is opened on, where it listens, and how much it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from annofree.apps.cli.help import limit_to
from annofree.apps.cli.options.common import OUTPUT

__all__ = [
    "AllowHost",
    "Host",
    "MaxPixels",
    "MaxUpload",
    "Models",
    "PagePolicy",
    "Port",
    "Queue",
    "Target",
    "Timeout",
    "Token",
    "Who",
    "WorkFolder",
]

_ADDRESS, _LIMITS = "Address", "Limits"

Target = Annotated[
    Path | None,
    typer.Argument(
        help="The folder of a run, or of images; without one, images come over the page.",
        metavar="RUN|FOLDER",
        show_default=False,
    ),
]
Models = Annotated[
    str | None,
    typer.Option(
        "--models",
        "--preset",
        help="A preset, or models joined by +, as `annofree models list` has them; else the run's, or fast.",
        rich_help_panel="Method",
        show_default=False,
    ),
]
PagePolicy = Annotated[
    str | None,
    typer.Option(
        "--policy",
        help="Which instances are handed over: answer, those that the models are sure of; all; else the run's, or answer.",
        rich_help_panel="Method",
        show_default=False,
        **limit_to("answer", "all"),
    ),
]
WorkFolder = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="The workspace: corrections, what was sent, and answers; by default the run, or else workspace.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
Who = Annotated[
    str | None,
    typer.Option(help="Whose corrections they are; else your user name.", rich_help_panel=OUTPUT, show_default=False),
]
Host = Annotated[
    str, typer.Option(help="The address to listen at; any but this machine's own needs --token.", rich_help_panel=_ADDRESS)
]
Port = Annotated[
    int | None,
    typer.Option(
        help="The port; else 8000, or the next that is free.", min=0, max=65535, rich_help_panel=_ADDRESS, show_default=False
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        help="What everybody has to know who asks, 16 letters or more; else ANNOFREE_TOKEN of the environment.",
        rich_help_panel=_ADDRESS,
        show_default=False,
    ),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        help="Another name that browsers call this server by, such as a proxy's; may be given again.",
        rich_help_panel=_ADDRESS,
        show_default=False,
    ),
]
MaxUpload = Annotated[
    float, typer.Option("--max-upload-mb", help="MB that may be sent at once.", min=0.001, rich_help_panel=_LIMITS)
]
MaxPixels = Annotated[int, typer.Option(help="Pixels of an image at most.", min=1, rich_help_panel=_LIMITS)]
Queue = Annotated[
    int, typer.Option(help="Questions that may wait; more are told to come again (429).", min=1, rich_help_panel=_LIMITS)
]
Timeout = Annotated[float, typer.Option(help="Seconds that a question may take.", min=0.01, rich_help_panel=_LIMITS)]
