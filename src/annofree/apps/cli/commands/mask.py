"""``annofree mask``: an archive of images in, one unsupervised mask an image out."""

from __future__ import annotations

import typer

from annofree.apps.cli.archive_results import mask_summary, mask_text
from annofree.apps.cli.options import retrieval as options
from annofree.apps.cli.options.common import Device, Json, Quiet
from annofree.apps.cli.process import start_command_clock
from annofree.apps.cli.progress import show_progress
from annofree.apps.cli.results import print_result
from annofree.pipelines import mask_archive as pipeline

__all__ = ["mask"]


def mask(
    archive: options.ArchiveFolder,
    by: options.By = None,
    models: options.Preset = "fast",
    weights: options.MaskWeights = None,
    refine: options.Refine = "none",
    side: options.Side = None,
    batch_size: options.MaskBatch = 4,
    sheet: options.MaskSheet = 12,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Mask the most salient object of each image; write masks.jsonl and sheets; the same command resumes after a kill.

    The quality of a mask is SelfMask's objectness; for the others, the mean of the soft map inside of the mask less that
    outside.  Exit code 0: all done; 1: some images failed and are named; 2: the call was wrong.

    Example: annofree mask archive
    """
    clock = start_command_clock()
    with show_progress("masks", quiet or as_json, clock=clock, batch=batch_size) as show:
        made = pipeline.mask_archive(
            archive,
            by=by,
            models=models,
            weights=weights,
            refine=refine,
            side=side,
            batch_size=batch_size,
            sheet=sheet,
            device=device,
            callbacks=show.callbacks,
            clock=clock,
        )
    print_result(mask_summary(made), mask_text(made), as_json, quiet)
    raise typer.Exit(1 if made.failed else 0)
