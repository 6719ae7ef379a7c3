"""``annofree mcp``: tools for language models, over standard input and output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from annofree.apps.cli.options import common
from annofree.errors import InputError
from annofree.hub.presets import DEFAULT

__all__ = ["mcp"]

Root = Annotated[
    Path | None,
    typer.Option(
        help="The folder that all paths are below, for reading and writing; by default the working directory.",
        show_default=False,
    ),
]
Preset = Annotated[
    str, typer.Option("--models", "--preset", help="A preset, or models joined by +, as `annofree models list` has them.")
]


def mcp(root: Root = None, models: Preset = DEFAULT, device: common.Device = "auto") -> None:
    """Serve the tools segment, relabel, report and doctor to a language model, over the Model Context Protocol on stdio.

    A model's program starts this command; paths are confined to --root. Answers are paths, counts and a small image.

    Example: annofree mcp --root photos
    """
    try:
        from annofree.apps.mcp.server import build_server
    except ImportError as problem:
        raise InputError(f'expected {problem.name}, which is not installed; pip install "annofree[mcp]"') from None
    build_server(root or Path(), models, device).run("stdio")
