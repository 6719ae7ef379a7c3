"""A run as the page needs it: where each image's row is, so that one is read at a time, and what the run kept of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.evaluation.review.risk import STORED, Scale
from annofree.formats.annotations import Annotation
from annofree.runs.batch_encoder import EncodeResult
from annofree.runs.corrections.acts import Instance, name_instance
from annofree.runs.corrections.answers import Answer
from annofree.runs.store.checks import check_row
from annofree.runs.store.chunks import Chunks
from annofree.runs.store.summary import find_images_root
from annofree.runs.stored_encodings import StoredEncodings
from annofree.runs.tasks import Tasks
from annofree.structures.coco_rows import encode_segmentation

__all__ = ["OpenedRun", "RowPlace"]


@dataclass(slots=True)
class RowPlace:
    """What the list of images tells of a row, and where it stands: its ``file`` by number, from ``start`` on."""

    id: str
    # as the run names it; file systems take it, and it need not be valid Unicode
    own: str
    number: int
    width: int
    height: int
    instances: int
    risk: float | None
    classes: tuple[int, ...]
    failed: str | None
    file: int
    start: int


class OpenedRun:
    """A complete run, opened once; raises InputError for a folder that is none, or without instances."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.shards = folder, Chunks(folder)
        self.shards.require_begun()
        self.shards.require_complete()
        self.settings = self.shards.read_settings()
        self.asked: dict[str, Any] = self.settings["asked"]
        if not (folder / "annotations.json").is_file():
            raise InputError(f"expected instances in the run {folder}, and there are none; run segment --task instance")
        self.names = tuple(str(words[0]) for words in self.asked["classes"])
        self.root = find_images_root(folder)
        self._files = [self.shards.folder / chunk.file for chunk in self.shards.list_whole().values()]
        self._stored: tuple[tuple[str, ...], StoredEncodings | None] | None = None

    def list_rows(self) -> Iterator[RowPlace]:
        """What each row tells, in the order of the run; raises InputError for a damaged one."""
        for number, path in enumerate(self._files):
            start = 0
            with path.open("rb") as lines:
                for text in lines:
                    yield _tell(self._check(path, text), number, start)
                    start += len(text)

    def read(self, place: RowPlace) -> Answer:
        """The answer of the run for an image; raises InputError for a damaged row."""
        path = self._files[place.file]
        with path.open("rb") as lines:
            lines.seek(place.start)
            row = self._check(path, lines.readline())
        size = place.height, place.width
        return Answer(size, tuple(self._instances(row.get("annotations", []), size)))

    def find_encoding(self, place: RowPlace, tasks: Tasks, device: str) -> Any:
        """What the run kept of an image, None where it kept nothing that these tasks can use."""
        key = tuple(tasks.encoding_key)
        if self._stored is None or self._stored[0] != key:
            try:
                self._stored = key, StoredEncodings(self.folder, tasks, device=device)
            except InputError:
                self._stored = key, None
        if self._stored[1] is None or place.failed:
            return None
        try:
            ((found,),) = self._stored[1].encode_batches([(place.number, place.own, "")])
        except InputError:
            return None
        assert isinstance(found, EncodeResult)  # noqa: S101
        return found.encoding

    def _check(self, path: Path, text: bytes) -> dict[str, Any]:
        try:
            return check_row(json.loads(text))
        except (ValueError, RecursionError) as problem:
            raise InputError(
                f"{path} is damaged ({problem}); give the command of the run again, which does that part anew"
            ) from None

    def _instances(self, rows: list[dict[str, Any]], size: tuple[int, int]) -> Iterator[Instance]:
        for row in rows:
            rle = encode_segmentation(row.get("segmentation"), size)
            if rle is not None:
                name = self.names[row["category_id"] - 1]
                yield Instance(name_instance(name, rle), name, rle, float(row.get("score", 1.0)))


def _tell(row: dict[str, Any], file: int, start: int) -> RowPlace:
    if "failed" in row:
        own = str(row["id"])
        return RowPlace(_readable(own), own, row["n"], 0, 0, 0, None, (), row["failed"], file, start)
    image, found = row["image"], row.get("annotations", [])
    things = [Annotation("", (0, 0, 0, 0), None, float(one.get("score", 1.0))) for one in found]
    risk = STORED["doubt"](things, Scale()).value
    classes = tuple(sorted({int(one["category_id"]) for one in found}))
    name = str(image.get("file_name", row["id"]))
    return RowPlace(name, row["id"], row["n"], image["width"], image["height"], len(found), risk, classes, None, file, start)


def _readable(name: str) -> str:
    return name.encode("utf-8", "replace").decode("utf-8")
