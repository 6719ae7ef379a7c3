"""The images of a COCO file one by one, so that a run of any length can be exported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from annofree.formats.annotations import AnnotatedImage, AnnotatedImages, build_not_listed_error, read_annotation
from annofree.formats.coco import CocoFile
from annofree.io.coco_stream import stream_coco

__all__ = ["read_annotated_images"]


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
