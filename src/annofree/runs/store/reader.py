"""The stored results of a run as detections, image by image, and a place on the disk for those on their way."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from annofree.errors import InputError
from annofree.formats.annotations import Annotation, read_annotation
from annofree.io.coco_stream import stream_coco
from annofree.ops.rle import pack_counts, unpack_counts
from annofree.runs.store.counts import ImageCount
from annofree.runs.store.summary import RunSummary, find_images_root
from annofree.structures import Detections

__all__ = ["RunLabels", "Spool", "StoredRun"]


class RunLabels(NamedTuple):
    """What is labeled in one image."""

    file_name: str
    found: Detections


@dataclass(frozen=True)
class StoredRun:
    """The stored results of a run: ``names`` (K) it was asked for, and the ``root`` of its images."""

    annotations: Path
    root: Path
    names: tuple[str, ...]
    summary: RunSummary

    @classmethod
    def read(cls, run: Path, images: Path | None = None) -> StoredRun:
        """Read what the run tells of itself; ``images`` is where its images are, if not where it had them.

        Raises InputError when it is no run with instances, or the images are not there.
        """
        summary = RunSummary.read(run, best=0)
        if not summary.has_instances:
            raise InputError(f"expected instances in the run {run}, and there are none; run segment --task instance")
        root = images or find_images_root(run)
        if root is None or not root.is_dir():
            raise InputError(f"expected the images of the run {run}, but they are not where it had them; name them: --images")
        names = tuple(count.name for count in summary.classes.values())
        return cls(run / "annotations.json", root.resolve(), names, summary)

    def read_images(self) -> Iterator[RunLabels]:
        """What was found in each image, strongest first, in the order of the run."""
        due = iter(self.summary.pictures.items())
        rows = (row for kind, row in stream_coco(self.annotations) if kind == "annotations")
        for id_, group in groupby(rows, lambda row: row["image_id"]):
            own = list(group)
            for other, image in due:
                yield self._found(image, own if other == id_ else [])
                if other == id_:
                    break
            else:
                raise InputError(f"expected {self.annotations} image by image, as runs write it; image {id_} is out of order")
        for _, image in due:
            yield self._found(image, [])

    def _found(self, image: ImageCount, rows: list[dict[str, Any]]) -> RunLabels:
        """Only the categories that an image has are looked at: a vocabulary may have thousands."""
        used = {row["category_id"]: self.summary.classes[row["category_id"]].name for row in rows}
        things = [read_annotation(row, used, image.size) for row in rows]
        return RunLabels(image.file_name, _detections(image.size, self.names, things))


def _detections(size: tuple[int, int], names: tuple[str, ...], things: Iterable[Annotation]) -> Detections:
    """Things that have masks, strongest first."""
    scored = [(1.0 if t.score is None else t.score, t) for t in things if t.rle is not None]
    scored.sort(key=lambda pair: -pair[0])
    return Detections(
        size,
        names,
        np.array([names.index(t.name) for _, t in scored], np.int64),
        np.array([score for score, _ in scored], np.float32),
        np.array([t.box for _, t in scored], np.float32).reshape(-1, 4),
        tuple(t.rle for _, t in scored if t.rle is not None),
    )


class Spool:
    """Labels on their way: a JSON line an image, in a file of ``folder`` that is gone when it is closed.

    It is written once and read as often as needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: TextIO

    def __enter__(self) -> Spool:
        self._file = tempfile.TemporaryFile("w+", dir=self._folder, encoding="ascii")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, labels: Iterable[RunLabels]) -> None:
        """Add the labels of images."""
        for one in labels:
            found = one.found
            rows = [found.class_ids.tolist(), found.scores.tolist(), found.boxes.tolist()]
            texts = pack_counts(found.rles)
            self._file.write(json.dumps([one.file_name, found.size, found.names, *rows, texts]) + "\n")

    def __iter__(self) -> Iterator[RunLabels]:
        self._file.seek(0)
        for line in self._file:
            name, size, names, class_ids, scores, boxes, texts = json.loads(line)
            rles = unpack_counts(texts, (size[0], size[1]))
            corners = np.array(boxes, np.float32).reshape(-1, 4)
            ids, values = np.array(class_ids, np.int64), np.array(scores, np.float32)
            yield RunLabels(name, Detections((size[0], size[1]), tuple(names), ids, values, corners, rles))
