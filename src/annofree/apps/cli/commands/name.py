"""``annofree name``: names for masks that are there already."""

from __future__ import annotations

from pathlib import Path

from annofree.apps.cli.options import common, pass_on
from annofree.apps.cli.options import name as own
from annofree.apps.cli.options import segment as options
from annofree.apps.cli.process import start_command_clock
from annofree.apps.cli.progress import show_progress
from annofree.apps.cli.summary import print_summary
from annofree.io.class_names import read_vocabulary
from annofree.pipelines import name_masks as pipeline

__all__ = ["name"]


def name(
    masks: own.Masks,
    images: own.ImageFolder = None,
    classes: options.ClassNames = None,
    classes_file: options.ClassesFile = None,
    negatives: options.Negatives = None,
    look: own.Look = "box",
    refine: own.Refine = "none",
    score: own.Score = "geometric",
    models: options.Models = "fast",
    policy: options.Policy = "answer",
    overlaps: options.Overlaps = None,
    min_score: options.MinScore = 0.0,
    device: common.Device = "auto",
    precision: options.Precision = "float32",
    out: options.RunOut = Path("named"),
    overlays: options.Overlays = True,
    keep_encodings: options.KeepEncodings = False,
    fresh: common.Fresh = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    retry: options.Retry = False,
    batch_size: options.BatchSize = None,
    limit: options.Limit = None,
) -> None:
    """Name the masks of a run, or of a COCO file of anybody's, by CLIP; the result is a run like that of segment.

    Whatever the masks were called is forgotten. Images without masks stay empty. Exit code 0: all done; 1: some images
    failed and are named, such as those that are not there or of another size than their masks; 2: the call was wrong.

    Example: annofree name out --classes "dog, cat" --refine box
    """
    asked = pass_on(locals(), "masks", "classes", "classes_file", "as_json", "quiet")
    clock = start_command_clock()
    with show_progress("images", quiet or as_json, clock=clock, batch=batch_size or 1) as show:
        names = read_vocabulary(classes, classes_file)
        result = pipeline.name_masks(masks, names, **asked, callbacks=show.callbacks, clock=clock)
    print_summary(result.summary, result.tasks, result.out, as_json, quiet, result.was_complete)
