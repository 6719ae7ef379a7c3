"""COCO instance files: images, categories, and masks as run lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.io.atomic import write_json
from annofree.io.read_json import parse_json
from annofree.io.text import read_text

__all__ = ["LISTS", "CocoFile", "read_lists"]

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
        data = parse_json(read_text(path), *LISTS)
    except OSError as problem:
        raise InputError(f"expected a {kind} file at {path}, but it cannot be read: {problem.strerror}") from None
    except (ValueError, RecursionError) as problem:
        raise InputError(f"expected {kind} in {path}, but it is not JSON: {problem}") from None
    absent = [key for key in LISTS if not (isinstance(data, dict) and isinstance(data.get(key), list))]
    if absent:
        raise InputError(f"expected {kind} in {path} with images, categories and annotations; no {', '.join(absent)}")
    return dict(data)
