"""The images of a COCO file one by one, so that a run of any length can be exported; and checks of its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.formats.annotations import AnnotatedImage, AnnotatedImages, build_not_listed_error, name_image, read_annotation
from annofree.formats.coco import CocoFile
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
from annofree.io.coco_stream import stream_coco

__all__ = ["CocoChecks", "read_annotated_images"]


def read_annotated_images(path: Path, info: Mapping[str, Any] | None = None) -> AnnotatedImages:
    """Return the images of a file whose annotations are in the order of its images, as annofree's own files are.

    In memory is one image at a time; a file in another order is read as a whole.  Raises InputError as ``stream_coco`` and
    ``list_images`` do.
    """
    categories, ordered = _look(path)
    if not ordered:
        file = CocoFile.read(path)
        file.info = {**file.info, **(info or {})}
        return AnnotatedImages.of(file)
    return AnnotatedImages(categories, lambda: _each(path, categories), dict(info or {}))


def _look(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """The categories, and whether the annotations come in the order of the images."""
    categories: list[dict[str, Any]] = []
    images, annotations, ordered = _rows(path, "images"), _rows(path, "annotations"), True
    at: Any = None
    for row in annotations:
        while ordered and at != row["image_id"]:
            image = next(images, None)
            ordered, at = image is not None, image and image["id"]
        if not ordered:
            break
    categories.extend(_rows(path, "categories"))
    return categories, ordered


def _each(path: Path, categories: list[dict[str, Any]]) -> Iterator[AnnotatedImage]:
    names = {category["id"]: str(category["name"]) for category in categories}
    annotations = _rows(path, "annotations")
    row = next(annotations, None)
    for image in _rows(path, "images"):
        size, things = (int(image["height"]), int(image["width"])), []
        with name_image(str(image["file_name"])):
            while row is not None and row["image_id"] == image["id"]:
                things.append(read_annotation(row, names, size))
                row = next(annotations, None)
        yield AnnotatedImage(str(image["file_name"]), size, tuple(things), image)
    if row is not None:
        raise build_not_listed_error(row, "image")


def _rows(path: Path, name: str) -> Iterator[dict[str, Any]]:
    """Stream the rows of one list; the rest of the file is not read."""
    begun = False
    for key, row in stream_coco(path):
        if key == name:
            begun = True
            yield row
        elif begun:
            return


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
        named = isinstance(row, dict) and row.get("id") is not None
        place = f"annotation {number}" + (f" (id {row['id']!r:.40})" if named else "")
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
