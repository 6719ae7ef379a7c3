"""Options of ``evaluate``: what is scored, the method, and what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from annofree.apps.cli.help import limit_to
from annofree.apps.cli.options.common import OUTPUT

__all__ = [
    "By",
    "Cluster",
    "GroundTruth",
    "Images",
    "Iou",
    "MaxDetections",
    "Method",
    "Models",
    "Novel",
    "Objectness",
    "Out",
    "Page",
    "PerClass",
    "Pictures",
    "Policy",
    "Predictions",
    "Protocol",
    "Split",
    "Task",
]

_SCORED, _METHOD, _INSTANCES, _MAPS = "Predictions and ground truth", "Method", "Instances", "Label maps"

GroundTruth = Annotated[
    Path,
    typer.Option(
        help="Ground truth: COCO instances; for label maps also a folder of them or a data set's root.", rich_help_panel=_SCORED
    ),
]
Images = Annotated[Path | None, typer.Option(help="The folder of its images: run a method on them.", rich_help_panel=_SCORED)]
Predictions = Annotated[
    Path | None,
    typer.Option(help="annotations.json of a run, a COCO results list, or a folder of label maps.", rich_help_panel=_SCORED),
]
Task = Annotated[
    str,
    typer.Option(help="Score instances or label maps.", rich_help_panel=_SCORED, **limit_to("instance", "semantic")),
]
Method = Annotated[
    str | None,
    typer.Option(
        help="With --images: the method; by default zip for instances, clip_diy for label maps.", rich_help_panel=_METHOD
    ),
]
Models = Annotated[
    str, typer.Option(help="With --images or --cluster: a preset, or models joined by +.", rich_help_panel=_METHOD)
]
Policy = Annotated[
    str,
    typer.Option(
        help="Instances, with --images: score the whole ranking (all), or the answer that segment gives.",
        rich_help_panel=_METHOD,
        **limit_to("all", "answer"),
    ),
]
Objectness = Annotated[
    str,
    typer.Option(
        help="Foreground map for clip_diy, masks for mask_crops: by name, or a detector's folder, a run, or a COCO file.",
        rich_help_panel=_METHOD,
        **limit_to("found", "found-bkg", "tokencut", "maskcut", "cutler", "none"),
    ),
]
Iou = Annotated[
    str | None,
    typer.Option(
        help="Compare masks (segm) or boxes (bbox); by default masks, or boxes where there are no masks.",
        rich_help_panel=_INSTANCES,
        **limit_to("segm", "bbox"),
    ),
]
MaxDetections = Annotated[
    int,
    typer.Option(
        help="Detections of an image and class that count, the most confident first; LVIS has 300.", rich_help_panel=_INSTANCES
    ),
]
By = Annotated[str | None, typer.Option(help="Report scores per group, by this image field.", rich_help_panel=_INSTANCES)]
Novel = Annotated[
    str | None,
    typer.Option(
        help="Score these classes and all others apart too; coco-17 for COCO's 17 and 48.", rich_help_panel=_INSTANCES
    ),
]
PerClass = Annotated[bool, typer.Option("--per-class", help="Score each class apart too.", rich_help_panel=_INSTANCES)]
Page = Annotated[
    Path | None,
    typer.Option(help="Write a page here: where quality is lost, curves and the worst errors.", rich_help_panel=_INSTANCES),
]
Pictures = Annotated[
    Path | None,
    typer.Option(
        help="With --predictions, and --page or --cluster: the folder of the images, to cut from.", rich_help_panel=_INSTANCES
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        help="Name predictions, whatever they are called, by clusters of what the --models' CLIP or DINO sees in their boxes, "
        "matched with the truth's classes: the truth is used.",
        rich_help_panel=_INSTANCES,
        **limit_to("clip", "dino"),
    ),
]
Protocol = Annotated[str, typer.Option(help="Evaluation protocol, for example voc21 or clip-diy-coco.", rich_help_panel=_MAPS)]
Split = Annotated[str | None, typer.Option(help="The data set's split, where it has several.", rich_help_panel=_MAPS)]
Out = Annotated[Path | None, typer.Option(help="Write the scores to this JSON file.", rich_help_panel=OUTPUT)]
