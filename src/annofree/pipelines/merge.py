"""The shards of a run, joined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annofree.io.arguments import as_list
from annofree.io.callbacks import Callbacks

if TYPE_CHECKING:
    from annofree.runs.clock import StageTimer

__all__ = ["merge"]


def merge(
    runs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    callbacks: Callbacks = Callbacks(),
    clock: StageTimer | None = None,
) -> dict[str, Any]:
    """Join runs of the same settings over the shards of the same images, and return what the new run.json holds.

    Files are copied, and the result is that of a run that was never divided.  Its seconds are those of all shards and of
    joining them, which ``clock`` may have begun to count before.  Raises InputError for folders that are no complete runs, and
    for runs that are not the shards of one; then nothing is joined.

    >>> merge(["examples"], "whole")
    Traceback (most recent call last):
    annofree.errors.InputError: examples is not a run folder (no shards/settings.json); pass the --out of `annofree segment`
    """
    from annofree.runs.store.chunks import Chunks

    folders = [Path(run) for run in as_list(runs)]
    for folder in folders:
        Chunks(folder).require_begun()  # before anything heavy is imported
    from annofree.runs.corrections.journal import has_corrections
    from annofree.runs.merge_shards import merge_runs as join

    for folder in filter(has_corrections, folders):
        callbacks.on_note(f"what people corrected in {folder} stays there, and is not joined")

    return join(folders, Path(out), on_progress=callbacks.on_progress, clock=clock)
