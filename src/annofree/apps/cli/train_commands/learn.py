"""``annofree learn``: photographs and names in; labels, and a detector learned from them, out."""

from __future__ import annotations

from annofree.apps.cli.options import common
from annofree.apps.cli.options import learn as own
from annofree.apps.cli.options import segment as options
from annofree.apps.cli.options.training import Corrections
from annofree.apps.cli.progress import show_progress
from annofree.apps.cli.results import print_result
from annofree.io.class_names import read_vocabulary
from annofree.pipelines.learning import learn as pipeline

__all__ = ["learn"]


def learn(
    inputs: options.Images,
    out: own.LearnOut,
    classes: options.ClassNames = None,
    classes_file: options.ClassesFile = None,
    rounds: own.Rounds = 2,
    minutes: own.MostMinutes = 60.0,
    steps: own.LearnSteps = None,
    min_labels: own.LeastLabels = 10,
    bank: own.LearnBank = None,
    models: options.Models = "fast",
    method: options.Method = None,
    config: own.LearnConfig = None,
    corrections: Corrections = None,
    device: common.Device = "auto",
    limit: options.Limit = None,
    max_tier: common.MaxTier = None,
    license: common.License = None,  # noqa: A002 -- the word of the option
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Learn from a folder: label it, train a detector on the labels, label it again, as long as that helps.

    Interrupted, the same command goes on. Leaves labels/labels.json (COCO), detector/, detector.onnx and page/ to look at.
    Exit code 0: done; 2: a wrong call, or nothing was found to learn from.

    Example: annofree learn photos --classes "dog, cat" --out learned
    """
    with show_progress("images", quiet or as_json) as show:
        learned = pipeline.learn(
            inputs, read_vocabulary(classes, classes_file), out, rounds=rounds, minutes=minutes, steps=steps,
            min_labels=min_labels, bank=bank, models=models, method=method, config=config, corrections=corrections,
            device=device, limit=limit, max_tier=max_tier, license=license, callbacks=show.callbacks,
        )  # fmt: skip
    ended = f"{learned.summary['ended']}; look at {learned.page}"
    written = ", ".join(str(place) for place in (learned.labels, learned.detector) if place.exists())
    print_result(learned.summary, f"{ended}\nwritten: {written}", as_json, quiet)
