"""Validation of ground-truth files before scoring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from annofree.errors import InputError
from annofree.formats.coco import CocoFile

__all__ = ["check_truth"]


def check_truth(truth: CocoFile) -> None:
    """Raise InputError for an annotation of no image or class, of a class that is not listed, or of odd numbers.

    >>> check_truth(CocoFile(annotations=[{"image_id": 1, "category_id": 3}]))
    Traceback (most recent call last):
    annofree.errors.InputError: annotation 0 of the truth has category_id 3, which is not among its 0 categories
    """
    classes = {row.get("id") for row in truth.categories}
    for number, row in enumerate(truth.annotations):
        if not isinstance(row, Mapping) or not {"image_id", "category_id"} <= row.keys():
            raise InputError(f"expected annotation {number} of the truth with image_id and category_id, got {str(row)[:60]}")
        if row["category_id"] not in classes:
            raise InputError(
                f"annotation {number} of the truth has category_id {row['category_id']!r}, which is not among its "
                f"{len(classes)} categories"
            )
        for key in ("area", "iscrowd"):
            if not _number(row.get(key)):
                raise InputError(f"expected {key} of annotation {number} of the truth as a number, got {row[key]!r}")


def _number(value: Any) -> bool:
    return value is None or isinstance(value, int | float)
