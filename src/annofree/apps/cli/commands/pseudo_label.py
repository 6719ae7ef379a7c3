"""``annofree pseudo-label``: what a run found, turned into labels that a detector can learn from."""

from __future__ import annotations

from annofree.apps.cli.label_table import label_table
from annofree.apps.cli.options import pseudo_labels as options
from annofree.apps.cli.options.common import Quiet
from annofree.apps.cli.progress import show_progress
from annofree.apps.cli.results import print_result
from annofree.pipelines.training import pseudo_label as pipeline

__all__ = ["pseudo_label"]


def pseudo_label(
    run: options.InstanceRun,
    out: options.LabelFolder,
    min_score: options.MinScore = None,
    keep: options.Keep = None,
    agnostic: options.Agnostic = False,
    min_area: options.MinArea = 1,
    within: options.Within = 0.5,
    across: options.Across = 1.0,
    inside: options.Inside = 0.9,
    most: options.Most = None,
    per_class: options.PerClass = None,
    rare: options.Rare = 0.0,
    drop_empty: options.DropEmpty = False,
    merge: options.Merge = None,
    merge_iou: options.MergeIou = 0.5,
    images: options.RunImages = None,
    sheet: options.LabelSheet = 24,
    as_json: options.LabelInfo = False,
    quiet: Quiet = False,
) -> None:
    """Turn a run's instances into labels to train on: minimum scores, duplicates, fragments, balance; merge an earlier round.

    labels.json is COCO; its info says which run, models and rules the labels come from, and what each rule dropped. Look at
    sheet.jpg before you train. Exit code 0: written; 2: the call was wrong, or nothing was left to label.

    Example: annofree pseudo-label out --out labels
    """
    with show_progress("images", quiet or as_json) as show:
        info = pipeline.pseudo_label(
            run, out, min_score=min_score, keep=keep, merge=merge, merge_iou=merge_iou, images=images, sheet=sheet,
            callbacks=show.callbacks, agnostic=agnostic, min_area=min_area, within=within, across=across, inside=inside,
            most=most, per_class=per_class, rare=rare, drop_empty=drop_empty,
        )  # fmt: skip
    seen = f"; look at {out / 'sheet.jpg'}" if sheet else ""
    print_result(info, f"{label_table(info)}\nwritten: {out / 'labels.json'}{seen}", as_json, quiet)
