"""The split of COCO's classes into 48 base and 17 novel ones of open-vocabulary detection."""

from __future__ import annotations

from annofree.datasets.benchmarks.unseen import keep_categories
from annofree.datasets.names import COCO_NAMES
from annofree.formats.coco import CocoFile

__all__ = ["BASE_48", "NOVEL_17", "select_coco_48_17"]

NOVEL_17: tuple[str, ...] = (
    "airplane", "bus", "cat", "dog", "cow", "elephant", "umbrella", "tie", "snowboard", "skateboard", "cup", "knife", "cake",
    "couch", "keyboard", "sink", "scissors",
)  # fmt: skip
"""Classes that a detector is asked for and has no boxes of (Bansal et al., ECCV 2018; Zareian et al., CVPR 2021)."""

_NEITHER = (
    "traffic light", "fire hydrant", "stop sign", "parking meter", "sports ball", "baseball bat", "baseball glove",
    "tennis racket", "wine glass", "hot dog", "potted plant", "dining table", "cell phone", "teddy bear", "hair drier",
)  # fmt: skip

BASE_48: tuple[str, ...] = tuple(name for name in COCO_NAMES if name not in (*NOVEL_17, *_NEITHER))
"""Classes whose boxes may be trained on, in COCO's order; the other 15 of the 80 are left out."""


def select_coco_48_17(truth: CocoFile) -> CocoFile:
    """Keep the 65 classes, and the images with at least one instance of them: 4,836 of val2017, as OVR-CNN counts.

    Raises InputError for a file without one of the classes.
    """
    kept = keep_categories(truth, (*BASE_48, *NOVEL_17))
    shown = {row["image_id"] for row in kept.annotations}
    return CocoFile([row for row in kept.images if row["id"] in shown], kept.categories, kept.annotations, kept.info)
