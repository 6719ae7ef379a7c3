"""``annofree index``: images in, an index of their embeddings out."""

from __future__ import annotations

import typer

from annofree.apps.cli.archive_results import index_summary, index_text
from annofree.apps.cli.options.common import Address, Device, Engine, Json, Quiet, Workers
from annofree.apps.cli.options.retrieval import Batch, Clip, IndexedImages, NewIndex, Shard, Threads, Whole
from annofree.apps.cli.process import start_command_clock
from annofree.apps.cli.progress import show_progress
from annofree.apps.cli.results import print_result
from annofree.pipelines import build_index as pipeline

__all__ = ["index"]


def index(
    inputs: IndexedImages,
    out: NewIndex,
    models: Clip = "fast",
    whole: Whole = None,
    batch: Batch = 32,
    shard: Shard = 4096,
    threads: Threads = 4,
    device: Device = "auto",
    engine: Engine = "local",
    address: Address = None,
    workers: Workers = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Embed images for `annofree retrieve`; the same command resumes after a kill.

    Exit code 0: all done; 1: some images failed and are named; 2: the call was wrong.

    Example: annofree index photos --out index
    """
    clock = start_command_clock()
    with show_progress("images", quiet or as_json, clock=clock, batch=batch) as show:
        made = pipeline.build_index(
            inputs,
            out,
            models=models,
            whole=whole,
            batch=batch,
            shard=shard,
            threads=threads,
            device=device,
            engine=engine,
            address=address,
            workers=workers,
            callbacks=show.callbacks,
            clock=clock,
        )
    print_result(index_summary(made), index_text(made), as_json, quiet)
    raise typer.Exit(1 if made.failed else 0)
