"""``annofree retrieve``: an index and names in, an archive of the images that fit each name out."""

from __future__ import annotations

import typer

from annofree.apps.cli.archive_results import format_retrieval, summarize_retrieval
from annofree.apps.cli.options import retrieval as options
from annofree.apps.cli.options.common import Device, Json, Quiet
from annofree.apps.cli.process import start_command_clock
from annofree.apps.cli.progress import show_progress
from annofree.apps.cli.results import print_failures, print_result
from annofree.pipelines import retrieve as pipeline

__all__ = ["retrieve"]


def retrieve(
    index: options.IndexFolder,
    out: options.NewArchive,
    classes: options.Classes = None,
    classes_file: options.ClassesFile = None,
    k: options.PerName = 500,
    method: options.SearchMethod = "exact",
    probes: options.Probes = 32,
    unique: options.Unique = False,
    min_score: options.LeastCosine = None,
    models: options.ClipOfIndex = None,
    templates: options.Templates = None,
    images: options.OtherRoot = None,
    sheet: options.ArchiveSheet = 24,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Retrieve the images that fit each name best; write archive.json and a contact sheet a name.

    Exit code 0: all done; 1: images of the sheets cannot be read and are named; 2: the call was wrong.

    Example: annofree retrieve index --classes "dog, cat" --out archive
    """
    with show_progress("embeddings", quiet or as_json, clock=start_command_clock()) as show:
        made = pipeline.retrieve(
            index, out, classes=classes, classes_file=classes_file, k=k, method=method, probes=probes, unique=unique,
            min_score=min_score, models=models, templates=templates, images=images, sheet=sheet, device=device,
            callbacks=show.callbacks,
        )  # fmt: skip
    print_failures(made.failed, "say where the images are with --images, or --sheet 0")
    print_result(summarize_retrieval(made), format_retrieval(made), as_json, quiet)
    raise typer.Exit(1 if made.failed else 0)
