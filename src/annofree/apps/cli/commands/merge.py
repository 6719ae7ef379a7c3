"""``annofree merge``: the parts of a run that was dealt out with --shard, joined."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from annofree.apps.cli.process import command_clock
from annofree.apps.cli.progress import progress
from annofree.apps.cli.summary import tell

__all__ = ["merge"]


def merge(
    runs: Annotated[list[Path], typer.Argument(help="The folders of all parts.", metavar="RUN", show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder to write to.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON instead of words.")] = False,
    quiet: Annotated[bool, typer.Option(help="Print nothing but errors.")] = False,
) -> None:
    """Join runs of the same settings over the parts of the same pictures; the result is that of a run never divided.

    Files are copied. Exit code 0: all joined; 1: some pictures failed in their part and are named in quarantine.json; 2: the
    runs are not the parts of one, and nothing was joined.

    Example: annofree merge part-1 part-2 --out whole
    """
    clock = command_clock()
    with progress("shards", quiet or as_json) as show:
        from annofree.runs.merge import merge as join

        summary = join(runs, out, on_progress=show, clock=clock)
    tell(summary, tuple(summary["settings"]["tasks"]), out, as_json, quiet)
