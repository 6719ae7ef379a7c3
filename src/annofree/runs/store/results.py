"""The results of a whole run, written from its rows one by one, so that a million images need no more memory than one.

A row is the result of ``RunFolder.record``, or the reason why there is none.  Images and annotations are numbered from 1 in the
order of the rows, so the files depend on nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from annofree.io.atomic import write_atomic
from annofree.io.json_stream import write_lists

__all__ = ["Rows", "average_shares", "write_annotations", "write_panoptic", "write_shares"]

Row = dict[str, Any]
Rows = Callable[[], Iterable[Row]]
"""Reads the rows of a run from the first one on, as often as it is called."""


def write_annotations(path: Path, names: Sequence[str], rows: Rows) -> None:
    """Write COCO instances: images with what was found in them, whole or not at all."""
    categories = [{"id": k, "name": name} for k, name in enumerate(names, 1)]
    lists = {"images": _images(rows), "categories": categories, "annotations": _annotations(rows)}
    write_lists(path, lists)


def write_panoptic(path: Path, categories: Sequence[Mapping[str, Any]], rows: Rows) -> None:
    """Write a COCO panoptic file; its PNGs are there already."""
    write_lists(path, {"images": _panoptic(rows, 0), "annotations": _panoptic(rows, 1), "categories": categories})


def average_shares(rows: Rows) -> dict[str, float]:
    """The mean part of an image that each name of the label maps has, the largest first."""
    sums: dict[str, float] = {}
    images = 0
    for row in _done(rows):
        for name, share in row.get("shares", {}).items():
            sums[name] = sums.get(name, 0.0) + share
        images += "shares" in row
    return dict(sorted(((name, total / images) for name, total in sums.items()), key=lambda item: -item[1]))


def write_shares(path: Path, mean: Mapping[str, float], rows: Rows) -> None:
    """Write the part of each label map that each name has."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write('{\n  "mean": ' + _indented(mean, 2) + ',\n  "pictures": {')
            for number, row in enumerate(r for r in _done(rows) if "shares" in r):
                stem = row["image"]["labels"].removeprefix("labels/").removesuffix(".png")
                file.write(f"{',' if number else ''}\n    {_json(stem)}: " + _indented(row["shares"], 4))
            file.write("\n  }\n}\n")

    write_atomic(path, write)


def _images(rows: Rows) -> Iterator[Row]:
    for number, row in enumerate(_done(rows), 1):
        yield {"id": number, **row["image"]}


def _annotations(rows: Rows) -> Iterator[Row]:
    number = 0
    for image, row in enumerate(_done(rows), 1):
        for annotation in row.get("annotations", []):
            number += 1
            yield {"id": number, **annotation, "image_id": image}


def _panoptic(rows: Rows, part: int) -> Iterator[Row]:
    """The image (part 0) or the segments (part 1) of each row, numbered."""
    key = ("id", "image_id")[part]
    for number, row in enumerate((r for r in _done(rows) if "panoptic" in r), 1):
        yield {key: number, **row["panoptic"][part]}


def _done(rows: Rows) -> Iterator[Row]:
    return (row for row in rows() if "failed" not in row)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _indented(value: Any, by: int) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2).replace("\n", "\n" + " " * by)
