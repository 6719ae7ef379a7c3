"""Validation of ground-truth files before scoring."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.formats.values import normalize_id, read_size
from annofree.ops.rle import compute_rle_length

__all__ = ["GIVEN_ID", "check_run_lengths", "check_truth", "find_id", "index_ids"]

GIVEN_ID = "id_in_file"
"""The key of an image or a class for its id in the file, where that is no whole number and another one is scored."""


def check_truth(truth: CocoFile) -> CocoFile:
    """Return a file as it can be scored: class names stripped, ids numbered where they are texts, and so in the annotations.

    A file whose values are sound comes back as it is.  Raises InputError for an annotation of no image or class, of one that is
    not listed, or of odd numbers, and for two images or two classes of one id.

    >>> check_truth(CocoFile(annotations=[{"image_id": 1, "category_id": 3}]))
    Traceback (most recent call last):
    annofree.errors.InputError: annotation 0 of the truth has category_id 3, which is not among its 0 categories
    """
    images, categories = _number(truth.images, "image"), _number(_strip(truth.categories), "class")
    known = {"category_id": index_ids(categories, "class", True), "image_id": index_ids(images, "image", True)}
    words = {"category_id": "categories", "image_id": "images"}
    rows = []
    for number, row in enumerate(truth.annotations):
        if not isinstance(row, Mapping) or not known.keys() <= row.keys():
            raise InputError(f"expected annotation {number} of the truth with image_id and category_id, got {str(row)[:60]}")
        for key, ids in known.items():
            if _key(row[key]) not in ids:
                raise InputError(
                    f"annotation {number} of the truth has {key} {row[key]!r}, which is not among its {len(ids)} {words[key]}"
                )
        check_run_lengths(row, f"annotation {number} of the truth")
        for key in ("area", "iscrowd"):
            if not _is_number(row.get(key)):
                raise InputError(f"expected {key} of annotation {number} of the truth as a number, got {row[key]!r}")
        if row.get("iscrowd") not in (None, 0, 1):
            raise InputError(f"expected iscrowd of annotation {number} of the truth as 0 or 1, got {row['iscrowd']!r}")
        given = {key: ids[_key(row[key])] for key, ids in known.items()}
        rows.append(row if all(row[key] is value or row[key] == value for key, value in given.items()) else {**row, **given})
    return CocoFile(images, categories, rows, truth.info)


def index_ids(rows: Sequence[Mapping[str, Any]], what: str, as_in_file: bool = False) -> dict[str, Any]:
    """Return the ids of rows by what they are looked up by, which are their ids or, ``as_in_file``, those of their file.

    Raises InputError for rows without an id, and where two have one.
    """
    found: dict[str, Any] = {}
    for row in rows:
        if not isinstance(row, Mapping) or _key(row.get("id")) == "":
            raise InputError(f"expected each {what} with an id, a number or a text, got {str(row)[:80]}")
        given = row.get(GIVEN_ID, row["id"]) if as_in_file else row["id"]
        if _key(given) in found:
            raise InputError(f"expected each {what} id once, got {given!r} twice; number them anew")
        found[_key(given)] = row["id"]
    return found


def find_id(known: Mapping[str, Any], value: Any) -> Any:
    """Return which of ``index_ids`` an id is, None where it is none of them.

    >>> find_id(index_ids([{"id": 7}], "image"), "7")
    7
    """
    return known.get(_key(value))


def _number(rows: list[dict[str, Any]], what: str) -> list[dict[str, Any]]:
    """Number rows from 1 unless all their ids are whole numbers."""
    index_ids(rows, what)
    if all(isinstance(row["id"], int) for row in rows):
        return rows
    return [{**row, "id": number, GIVEN_ID: row["id"]} for number, row in enumerate(rows, 1)]


def _strip(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    index_ids(rows, "class")
    if any("name" not in row for row in rows):
        raise InputError("expected each class of the truth with a name; is it a COCO file?")
    return [row if row["name"] == (name := str(row["name"]).strip()) else {**row, "name": name} for row in rows]


def check_run_lengths(row: Mapping[str, Any], where: str) -> None:
    """Raise InputError for a mask as compressed run lengths that are damaged, or do not cover the size that it claims."""
    drawn = row.get("segmentation")
    if not isinstance(drawn, Mapping) or not isinstance(drawn.get("counts"), str):
        return
    try:
        height, width = drawn["size"]
        height, width = read_size(height, width, where)
        total = compute_rle_length({"size": [height, width], "counts": drawn["counts"]})
    except (ValueError, TypeError, KeyError) as problem:
        raise InputError(f"expected a mask as run lengths in {where}, got some that cannot be read: {problem}") from None
    if total != height * width:
        raise InputError(f"expected run lengths that add up to {height} x {width} pixels in {where}, got {total}")


def _key(value: Any) -> str:
    """What an id is looked up by, "" where it is none."""
    try:
        return normalize_id(value)
    except ValueError:
        return ""


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and math.isfinite(value))
