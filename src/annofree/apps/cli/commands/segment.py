"""``annofree segment``: images and class names in; boxes, masks and label maps out."""

from __future__ import annotations

from annofree.apps.cli.options import common, pass_on
from annofree.apps.cli.options import segment as options
from annofree.apps.cli.process import start_command_clock
from annofree.apps.cli.progress import show_progress
from annofree.apps.cli.summary import print_summary
from annofree.io.class_names import read_vocabulary
from annofree.methods.registry import is_class_agnostic
from annofree.pipelines import segment as pipeline

__all__ = ["segment"]


def segment(
    inputs: options.Images,
    classes: options.ClassNames = None,
    classes_file: options.ClassesFile = None,
    task: options.TaskNames = "instance",
    stuff: options.Stuff = None,
    negatives: options.Negatives = None,
    method: options.Method = None,
    variant: common.Variant = "default",
    models: options.Models = "fast",
    objectness: options.Objectness = "found",
    policy: options.Policy = "answer",
    overlaps: options.Overlaps = None,
    detector: options.Detector = None,
    min_score: options.MinScore = 0.0,
    device: common.Device = "auto",
    precision: options.Precision = "float32",
    out: options.RunOut = options.OUT,
    overlays: options.Overlays = True,
    keep_encodings: options.KeepEncodings = False,
    fresh: common.Fresh = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    retry: options.Retry = False,
    shard: options.Shard = None,
    batch_size: options.BatchSize = None,
    limit: options.Limit = None,
    engine: common.Engine = "local",
    address: common.Address = None,
    workers: common.Workers = None,
    max_tier: common.MaxTier = None,
    license: common.License = None,  # noqa: A002 -- the word of the option
) -> None:
    """Find the named classes in images; write run.json, annotations.json (COCO), labels/ or panoptic.json, and overlays.

    Interrupted, the same command resumes. Exit code 0: all done; 1: some images failed, see quarantine.json; 2: a wrong call.

    Example: annofree segment photos --classes "dog, cat: kitten | tabby"
    """
    asked = pass_on(locals(), "inputs", "classes", "classes_file", "as_json", "quiet")
    with show_progress("images", quiet or as_json, clock=(clock := start_command_clock()), batch=batch_size or 1) as show:
        names = read_vocabulary(classes, classes_file, optional=not classes and is_class_agnostic(method, models))
        result = pipeline.segment(inputs, names, **asked, callbacks=show.callbacks, clock=clock)
    print_summary(result.summary, result.tasks, result.out, as_json, quiet, result.was_complete)
