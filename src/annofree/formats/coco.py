"""COCO instance files: images, categories, and masks as run lengths."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.formats.passed_over import PassedOver, Place
from annofree.formats.values import (
    check_segmentation,
    find_image,
    normalize_id,
    order_box,
    read_image_size,
    read_numbers,
    read_size,
    tell_names_apart,
)
from annofree.io.atomic import write_json
from annofree.io.text import read_text

__all__ = ["LISTS", "CocoChecks", "CocoFile", "read_lists"]

LISTS = ("images", "categories", "annotations")
"""The lists that a COCO file has."""


@dataclass
class CocoFile:
    """A COCO file in memory: ``images``, ``categories`` and ``annotations`` as lists of plain dicts.

    >>> file = CocoFile.with_categories({1: "dog"})
    >>> file.add_image("a.jpg", (4, 6)), file.add_image("b.jpg", (4, 6), note="kept")
    (1, 2)
    """

    images: list[dict[str, Any]] = field(default_factory=list)
    categories: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def with_categories(cls, names: Mapping[int, str]) -> CocoFile:
        """Start a file whose categories are ``names`` by id."""
        return cls(categories=[{"id": id_, "name": name} for id_, name in names.items()])

    def add_image(self, file_name: str, size: tuple[int, int], **more: Any) -> int:
        """Add an image of size (H, W) and return its id, counted from 1."""
        id_ = len(self.images) + 1
        self.images.append({"id": id_, "file_name": file_name, "height": size[0], "width": size[1], **more})
        return id_

    def add_annotations(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add annotations, numbered from 1 over the whole file."""
        for row in rows:
            self.annotations.append({"id": len(self.annotations) + 1, **row})

    def write(self, path: Path) -> None:
        """Write the file atomically."""
        write_json(
            path,
            {"info": self.info, "images": self.images, "categories": self.categories, "annotations": self.annotations},
        )

    @classmethod
    def read(cls, path: Path) -> CocoFile:
        """Read a file; raises InputError if it is missing, not JSON, or not COCO instances."""
        data = read_lists(path, "COCO JSON")
        return cls(**{key: data[key] for key in LISTS}, info=data.get("info", {}))


def read_lists(path: Path, kind: str) -> dict[str, Any]:
    """Read a file with COCO's lists; ``kind`` says in errors what it should be.

    Raises InputError when it is not there, not JSON, or lacks one of the lists.
    """
    try:
        data = json.loads(read_text(path))
    except OSError as problem:
        raise InputError(f"expected a {kind} file at {path}, but it cannot be read: {problem.strerror}") from None
    except (ValueError, RecursionError) as problem:
        raise InputError(f"expected {kind} in {path}, but it is not JSON: {problem}") from None
    absent = [key for key in LISTS if not (isinstance(data, dict) and isinstance(data.get(key), list))]
    if absent:
        raise InputError(f"expected {kind} in {path} with images, categories and annotations; no {', '.join(absent)}")
    return dict(data)


@dataclass
class CocoChecks:
    """Checks the rows of a COCO file where they are read, and hands them on; sound ones as they are.

    Images and categories come before annotations.  ``images`` is the folder of the images, for sizes that the file lacks.
    Raises InputError for an image or a category of an id that was there before, and for an image without a size.
    """

    path: Path
    passed: PassedOver
    images: Path | None = None
    image_ids: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    category_ids: dict[str, Any] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def check_file(self, file: CocoFile) -> CocoFile:
        """All rows of a file; annotations that cannot be read are left out, and ``passed`` is told."""
        images = [self.check_image(row) for row in file.images]
        categories = self.check_categories(file.categories)
        rows = [self.check_annotation(row, number) for number, row in enumerate(file.annotations)]
        return CocoFile(images, categories, [row for row in rows if row is not None], file.info)

    def check_image(self, row: dict[str, Any]) -> dict[str, Any]:
        """An image with a size, from its file if need be."""
        key = self._claim(row, self.image_ids, "image")
        name = row["file_name"]
        if not isinstance(name, str) or not name or "\0" in name:
            raise InputError(f"expected a file_name of each image in {self.path}, got {name!r:.60} for image {row['id']!r}")
        height, width = row.get("height"), row.get("width")
        if not height or not width:
            place = None if self.images is None else find_image(self.images, name)
            if place is None:
                raise InputError(
                    f"expected height and width of each image in {self.path}, no size of {name}; "
                    "add them, or give --image-root, the folder that has the images"
                )
            height, width = read_image_size(place)
        self.sizes[key] = read_size(height, width, f"{self.path}, image {name}")
        height, width = self.sizes[key]
        return row if (row.get("height"), row.get("width")) == (height, width) else {**row, "height": height, "width": width}

    def check_categories(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Categories whose names are stripped, and told apart."""
        keys = [self._claim(row, self.category_ids, "category") for row in rows]
        given = [str(row["name"]).strip() for row in rows]
        more = [str(row.get("supercategory") or row["id"]) for row in rows]
        place = (self.path, "categories")
        names = tell_names_apart(list(zip(keys, given, more, strict=True)), self.passed, place)
        return [row if row["name"] == name else {**row, "name": name} for row, name in zip(rows, names.values(), strict=True)]

    def _claim(self, row: dict[str, Any], taken: dict[str, Any], what: str) -> str:
        if not isinstance(row, dict) or "id" not in row:
            raise InputError(f"expected each {what} of {self.path} with an id, got {row!r:.60}")
        try:
            key = normalize_id(row["id"])
        except ValueError as problem:
            raise InputError(f"{problem} of the {what} {row!r:.80} of {self.path}") from None
        if key in taken:
            raise InputError(f"expected each {what} id once in {self.path}, got {row['id']!r} twice; number them anew")
        taken[key] = row["id"]
        return key

    def check_annotation(self, row: Any, number: int) -> dict[str, Any] | None:
        """An annotation with finite numbers and known ids; None for one that cannot be read, of which ``passed`` is told."""
        place = (
            f"annotation {row['id']!r:.40}" if isinstance(row, dict) and row.get("id") is not None else f"annotation {number}"
        )
        try:
            return self._annotation(row, place)
        except (ValueError, TypeError, KeyError, OverflowError) as problem:
            why = f"no {problem} in it" if isinstance(problem, KeyError) else " ".join(str(problem).split())
            self.passed.refuse(self.path, place, why)
        return None

    def _annotation(self, row: Any, place: str) -> dict[str, Any]:
        if not isinstance(row, dict):
            raise TypeError(f"expected an object, got {row!r:.60}")
        where = (self.path, place)
        changed = {**self._ids(row), **self._box(row, where)}
        drawn = check_segmentation(row.get("segmentation"), self._size(row), self.passed, where)
        if drawn is not None:
            changed["segmentation"] = drawn
        score = row.get("score")
        if score is not None:
            (number,) = read_numbers([score], "a score")
            changed |= {} if number == score else {"score": number}
        sound = {key: value for key, value in row.items() if value is not None or key not in _NUMBERS}
        if "area" in sound and not _is_number(sound["area"]):
            del sound["area"]
        if row.get("iscrowd") not in (None, 0, 1):
            changed["iscrowd"] = int(bool(read_numbers([row["iscrowd"]], "iscrowd")[0]))
        if not changed.get("bbox", row.get("bbox")) and not changed.get("segmentation", row.get("segmentation")):
            raise ValueError("expected a bbox or a segmentation, got neither")
        return row if not changed and len(sound) == len(row) else {**sound, **changed}

    def _ids(self, row: dict[str, Any]) -> dict[str, Any]:
        """The ids of image and category as these have them."""
        changed: dict[str, Any] = {}
        if row.get("id") is not None:
            key = normalize_id(row["id"])
            if key in self.seen:
                raise ValueError("an id that another annotation has")
            self.seen.add(key)
        for what, known in (("image_id", self.image_ids), ("category_id", self.category_ids)):
            key = normalize_id(row[what])
            if key not in known:
                raise ValueError(f"is of {what.removesuffix('_id')} {row[what]!r:.40}, which the file does not list")
            if known[key] is not row[what] and (known[key] != row[what] or type(known[key]) is not type(row[what])):
                changed[what] = known[key]
        return changed

    def _size(self, row: dict[str, Any]) -> tuple[int, int]:
        return self.sizes[normalize_id(row["image_id"])]

    def _box(self, row: dict[str, Any], where: Place) -> dict[str, Any]:
        box = row.get("bbox")
        if not box:
            return {}
        numbers = read_numbers(box, "a bbox")
        if len(numbers) != 4:
            raise ValueError(f"expected a bbox as x y w h, got {box!r:.60}")
        x, y, width, height = numbers
        if width >= 0 and height >= 0:
            return {} if numbers == box else {"bbox": numbers}
        x0, y0, x1, y1 = order_box((x, y, x + width, y + height), self.passed, where)
        return {"bbox": [x0, y0, x1 - x0, y1 - y0]}


_NUMBERS = ("bbox", "area", "score", "iscrowd", "segmentation")
"""What is absent where it is null."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < float("inf")
