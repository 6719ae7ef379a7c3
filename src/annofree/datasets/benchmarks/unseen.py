"""The split of COCO's 80 classes into 65 seen and 15 unseen ones of zero-shot instance segmentation."""

from __future__ import annotations

from collections.abc import Collection

from annofree.datasets.names import COCO_NAMES
from annofree.errors import build_unknown_error
from annofree.formats.coco import CocoFile

__all__ = ["SEEN_65", "UNSEEN_15", "keep_categories"]

UNSEEN_15: tuple[str, ...] = (
    "airplane", "train", "parking meter", "cat", "bear", "suitcase", "frisbee", "snowboard", "fork", "sandwich", "hot dog",
    "toilet", "mouse", "toaster", "hair drier",
)  # fmt: skip
"""Classes of which nothing is trained on (Zheng et al., CVPR 2021)."""

SEEN_65: tuple[str, ...] = tuple(name for name in COCO_NAMES if name not in UNSEEN_15)
"""All others, in COCO's order."""


def keep_categories(truth: CocoFile, names: Collection[str]) -> CocoFile:
    """Keep all images and the categories of ``names`` with their instances; raises InputError for an unknown class.

    >>> keep_categories(CocoFile.with_categories({1: "person", 17: "cat"}), ["cat"]).categories
    [{'id': 17, 'name': 'cat'}]
    """
    known = [row["name"] for row in truth.categories]
    for name in names:
        if name not in known:
            raise build_unknown_error("category", name, known)
    categories = [row for row in truth.categories if row["name"] in names]
    ids = {row["id"] for row in categories}
    return CocoFile(truth.images, categories, [row for row in truth.annotations if row["category_id"] in ids], truth.info)
