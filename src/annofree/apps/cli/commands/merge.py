"""``annofree merge``: the shards of a run that was dealt out with --shard, joined."""

from __future__ import annotations

from annofree.apps.cli.options.common import Json, Quiet
from annofree.apps.cli.options.files import OutFolder, RunFolders
from annofree.apps.cli.process import start_command_clock
from annofree.apps.cli.progress import show_progress
from annofree.apps.cli.summary import print_summary
from annofree.pipelines import merge as pipeline

__all__ = ["merge"]


def merge(runs: RunFolders, out: OutFolder, as_json: Json = False, quiet: Quiet = False) -> None:
    """Join runs of the same settings over the shards of the same images; the result is that of a run never divided.

    Files are copied. Exit code 0: all joined; 1: some images failed in their shard and are named in quarantine.json; 2: the
    runs are not the shards of one, and nothing was joined.

    Example: annofree merge part-1 part-2 --out whole
    """
    clock = start_command_clock()
    with show_progress("shards", quiet or as_json) as show:
        summary = pipeline.merge(runs, out, callbacks=show.callbacks, clock=clock)
    print_summary(summary, tuple(summary["settings"]["tasks"]), out, as_json, quiet)
