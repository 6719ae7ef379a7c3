"""``annofree evaluate``: score predictions, or a method, against ground truth."""

from __future__ import annotations

import sys

from annofree.apps.cli.options import common, pass_on
from annofree.apps.cli.options import evaluate as options
from annofree.apps.cli.process import start_command_clock
from annofree.apps.cli.progress import show_progress
from annofree.apps.cli.scores import show_evaluation
from annofree.pipelines import evaluate as pipeline

__all__ = ["evaluate"]


def evaluate(
    truth: options.GroundTruth,
    images: options.Images = None,
    predictions: options.Predictions = None,
    task: options.Task = "instance",
    method: options.Method = None,
    variant: common.Variant = "default",
    models: options.Models = "tiny",
    policy: options.Policy = "all",
    objectness: options.Objectness = "found",
    device: common.Device = "auto",
    iou: options.Iou = None,
    max_detections: options.MaxDetections = 100,
    by: options.By = None,
    novel: options.Novel = None,
    per_class: options.PerClass = False,
    page: options.Page = None,
    pictures: options.Pictures = None,
    cluster: options.Cluster = None,
    protocol: options.Protocol = "default",
    split: options.Split = None,
    out: options.Out = None,
    as_json: common.Json = False,
) -> None:
    """Score instances or, with --task semantic, label maps (mIoU by a protocol).

    Instances: AP and AR as COCO counts them, touching pairs that come out as two, precision, recall and F1 of the answer, and
    where quality is lost: what AP and F1 would be if only names, masks or the order were right. --predictions scores a file,
    --images runs a method. Notes go to the error stream: images without a prediction, boxes for want of masks.

    Example: annofree evaluate --truth truth.json --predictions out/annotations.json
    """
    asked = pass_on(locals(), "as_json")
    clock = start_command_clock()
    with show_progress("images", clock=clock, loading="loading models and images") as show:
        done = pipeline.evaluate(**asked, callbacks=show.callbacks, clock=clock)
    show_evaluation(done, clock, as_json)
    if done.page is not None:
        print(f"written: {done.page}", file=sys.stderr if as_json else sys.stdout)
