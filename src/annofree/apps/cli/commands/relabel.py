"""``annofree relabel``: other names for a run, from what it kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from annofree.apps.cli.options import common, pass_on
from annofree.apps.cli.options import segment as options
from annofree.apps.cli.process import start_command_clock
from annofree.apps.cli.progress import show_progress
from annofree.apps.cli.summary import print_summary
from annofree.io.class_names import read_vocabulary
from annofree.pipelines import relabel as pipeline

__all__ = ["relabel"]


def relabel(
    run: Annotated[Path, typer.Argument(help="The folder of a run with --keep-encodings.", metavar="RUN", show_default=False)],
    classes: options.ClassNames = None,
    classes_file: options.ClassesFile = None,
    stuff: options.Stuff = None,
    negatives: options.Negatives = None,
    overlaps: options.Overlaps = None,
    presence: options.Presence = "fixed",
    bank: options.Bank = False,
    bank_of: options.BankOf = None,
    min_score: options.MinScore = 0.0,
    max_tier: common.MaxTier = None,
    out: options.RunOut = Path("relabelled"),
    overlays: options.Overlays = False,
    fresh: common.Fresh = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Ask a run for other names, with its methods, models and tasks; the results are those of a new run, up to fp16.

    Images that the run could not do stay in quarantine. Exit code 0: all done; 1: some images failed and are named; 2: the
    call was wrong.

    Example: annofree relabel out --classes "bird, boat" --out other
    """
    asked = pass_on(locals(), "run", "classes", "classes_file", "bank_of", "as_json", "quiet") | {"bank": bank_of or bank}
    clock = start_command_clock()
    with show_progress("images", quiet or as_json, clock=clock) as show:
        names = read_vocabulary(classes, classes_file)
        result = pipeline.relabel(run, names, **asked, callbacks=show.callbacks, clock=clock)
    print_summary(result.summary, result.tasks, result.out, as_json, quiet, result.was_complete)
