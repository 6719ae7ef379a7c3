"""A COCO instance file read row by row into columns, with a fixed share of its images."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from annofree.errors import InputError
from annofree.formats.annotations import Annotation, list_names, read_annotation
from annofree.formats.coco import CocoFile
from annofree.formats.coco_annotations import CocoChecks
from annofree.formats.passed_over import PassedOver
from annofree.formats.values import check_segmentation, normalize_id, read_numbers
from annofree.io.coco_stream import stream_coco
from annofree.ops.rle import compute_rle_area
from annofree.structures import FloatArray, IntArray

__all__ = ["CocoReading", "Columns"]

_WORDS = 1 << 62  # the number of the first category id that is a text


@dataclass(frozen=True, eq=False)
class Columns:
    """All instances (M) in the order of the file, ``masks`` as the counts of run lengths.

    ``order`` (M) sorts them by image; ``firsts`` (P + 1) says where in it each image begins, and the last ends.
    """

    masks: list[bytes]
    class_ids: IntArray
    scores: FloatArray
    order: IntArray
    firsts: IntArray

    def find_rows(self, index: int) -> IntArray:
        """Which are of an image."""
        return self.order[self.firsts[index] : self.firsts[index + 1]]


@dataclass
class CocoReading:
    """A COCO file on its way in: ``ids`` are the file names of the chosen images; lists have an entry for each instance.

    ``root`` is the folder of the images, for sizes that the file lacks.  Raises InputError for a file without images or masks,
    with rows that are damaged, and with two images of one name or two things of one id.
    """

    path: Path
    fraction: float
    seed: int
    root: Path | None = None
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    categories: dict[int, dict[str, Any]] = field(default_factory=dict)
    words: dict[str, int] = field(default_factory=dict)  # numbers of category ids that are no whole numbers
    places: dict[str, int] = field(default_factory=dict)  # of the chosen images, by id
    ids: list[str] = field(default_factory=list)
    masks: list[bytes] = field(default_factory=list)
    owners: array[int] = field(default_factory=lambda: array("q"))
    category_ids: array[int] = field(default_factory=lambda: array("q"))
    scores: array[float] = field(default_factory=lambda: array("f"))
    left_out: dict[str, int] = field(default_factory=lambda: {"crowd": 0, "no mask": 0})

    def __post_init__(self) -> None:
        try:
            self._read()
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as problem:
            if isinstance(problem, InputError):
                raise
            raise InputError(f"expected COCO instances in {self.path}, but a row is damaged or lacks {problem}") from None
        if not self.ids:
            raise InputError(f"expected images in {self.path}, found none; is it a COCO instance file?")
        if not self.masks and self.left_out["no mask"]:
            raise InputError(f"expected masks in {self.path}, but none of its {self.left_out['no mask']} annotations has one")

    def _read(self) -> None:
        waiting, checks = False, CocoChecks(self.path, PassedOver(), self.root)
        for kind, row in stream_coco(self.path):
            if kind == "images":
                row = checks.check_image(row)
                self.images[normalize_id(row["id"])] = row
            elif kind == "categories":
                self._category(row)
            elif kind == "annotations" and not (waiting := waiting or not self.images):
                self._annotation(row)
        self._choose()
        if waiting:  # a file that has its images last is read twice
            for kind, row in stream_coco(self.path):
                if kind == "annotations":
                    self._annotation(row)

    def _category(self, row: dict[str, Any]) -> None:
        number = self._number(row["id"])
        if number in self.categories:
            raise InputError(f"expected each category id once in {self.path}, got {row['id']!r} twice; number them anew")
        self.categories[number] = {**row, "name": str(row["name"]).strip()}

    def _number(self, id_: Any) -> int:
        """A category id as a number; texts come after all numbers, in the order of the file."""
        key = normalize_id(id_)
        return int(key) if key.lstrip("-").isdecimal() else self.words.setdefault(key, _WORDS + len(self.words))

    def _choose(self) -> None:
        """Rank the images by hash and take the first."""
        if self.ids or not self.images:
            return
        names = {id_: str(row["file_name"]) for id_, row in self.images.items()}
        if len(set(names.values())) != len(names):
            raise InputError(f"expected each image once in {self.path}, but two have one file_name; leave one out")
        ranked = sorted(names, key=lambda id_: (hashlib.sha256(f"{self.seed}:{names[id_]}".encode()).digest(), names[id_]))
        chosen = ranked[: max(1, round(self.fraction * len(ranked)))]
        chosen.sort(key=lambda id_: names[id_])
        self.places = {id_: place for place, id_ in enumerate(chosen)}
        self.ids = [names[id_] for id_ in chosen]

    def _annotation(self, row: dict[str, Any]) -> None:
        self._choose()
        key, category = normalize_id(row["image_id"]), self._number(row["category_id"])
        where = f"annotation {row.get('id')!r:.40}"
        if key not in self.images:
            raise InputError(f"{where} of {self.path} is of image {row['image_id']!r}, which it does not list")
        if key not in self.places:
            return
        thing = self._thing(row, (self.images[key]["height"], self.images[key]["width"]), where)
        if thing.crowd:
            self.left_out["crowd"] += 1
        elif thing.rle is None or not compute_rle_area(thing.rle):
            self.left_out["no mask"] += 1
        else:
            self.masks.append(thing.rle["counts"])
            self.owners.append(self.places[key])
            self.category_ids.append(category)
            self.scores.append(1.0 if thing.score is None else thing.score)

    def _thing(self, row: dict[str, Any], size: tuple[int, int], where: str) -> Annotation:
        """The mask of an annotation, with its values checked."""
        try:
            drawn = check_segmentation(row.get("segmentation"), size, PassedOver(), (self.path, where))
            score = row.get("score") if row.get("score") is None else read_numbers([row["score"]], "a score")[0]
        except (TypeError, ValueError) as problem:
            raise InputError(f"{where} of {self.path}: {problem}") from None
        drawn = row.get("segmentation") if drawn is None else drawn
        # the name and the box are left open: categories may come later in the file, and boxes are those of the masks
        open_ = {**row, "bbox": [0.0] * 4, "segmentation": drawn, "score": score, "category_id": 0}
        return read_annotation(open_, {0: ""}, size)

    def list_names(self) -> tuple[str, ...]:
        """The classes in order of category id."""
        return list_names(CocoFile(categories=[self.categories[k] for k in sorted(self.categories)]))

    def list_rows(self) -> list[dict[str, Any]]:
        """What the file says of each chosen image."""
        return [self.images[id_] for id_ in self.places]

    def count_instances(self) -> IntArray:
        """Instances of each chosen image."""
        return np.bincount(np.array(self.owners, np.int64), minlength=len(self.ids)).astype(np.int64)

    def gather_columns(self, agnostic: bool) -> Columns:
        """All instances, of one class if ``agnostic``, sorted by image."""
        firsts = np.concatenate([[0], np.cumsum(self.count_instances())]).astype(np.int64)
        order = np.argsort(np.array(self.owners, np.int64), kind="stable").astype(np.int64)
        return Columns(self.masks, self._class_ids(agnostic), np.array(self.scores, np.float32), order, firsts)

    def _class_ids(self, agnostic: bool) -> IntArray:
        """Number the classes from 0 in order of category id."""
        given, known = np.array(self.category_ids, np.int64), np.array(sorted(self.categories), np.int64)
        strange = sorted(set(given.tolist()) - set(known.tolist()))
        if strange:
            raise InputError(f"an annotation of {self.path} is of category {strange[0]}, which it does not list; add it")
        return np.zeros(len(given), np.int64) if agnostic else np.searchsorted(known, given).astype(np.int64)
