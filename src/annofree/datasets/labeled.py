"""Images with named instances to learn from: any COCO instance file, or what ``annofree pseudo-label`` wrote.

Images stand in the order of their file names, whatever the order of the file.  A share of them is a fixed one: images
are ranked by a hash of the seed and their file name, and the first are taken, so that 1 % lies within 5 %, and an image that
removing an image moves no other.  These are not the published splits of papers, which are read from files as usual.

Conventions: P images, N instances of one; class ids index ``names``; masks stay run lengths until an image is opened.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from annofree.datasets.coco_columns import CocoReading, Columns
from annofree.errors import InputError
from annofree.formats.values import find_image
from annofree.io.image_sources import read_place
from annofree.io.text import open_text
from annofree.ops.rle import compute_rle_boxes
from annofree.structures import BoolArray, Detections, FloatArray, Image, IntArray

__all__ = ["AGNOSTIC", "Example", "Labeled", "find_labels_file", "read_info"]

AGNOSTIC = "object"
"""What all things are called where names do not count."""

_HEADS = (1 << 16, 1 << 26)  # characters within which a file's info is looked for


class Example(NamedTuple):
    """An opened image: ``image`` (H, W, 3) uint8, ``masks`` (N, H, W) bool, tight ``boxes`` (N, 4) float32, ``class_ids``
    (N) int64 and ``scores`` (N) float32, 1 in ground truth.
    """

    image: npt.NDArray[np.uint8]
    masks: BoolArray
    boxes: FloatArray
    class_ids: IntArray
    scores: FloatArray


@dataclass(frozen=True, eq=False)
class Labeled:
    """Images with instances of ``names`` (K).

    ``ids`` (P): file names below ``root``, sorted; ``sizes`` (P, 2) int64 (H, W); ``counts`` (P) int64 instances of each;
    ``repeats`` (P) float32: how often an image is to be seen, 1 unless the file has its own ``repeat``.  ``left_out`` counts
    the annotations that take no part: crowds, and those without a mask or with an empty one.
    """

    names: tuple[str, ...]
    ids: tuple[str, ...]
    root: Path
    sizes: IntArray
    repeats: FloatArray
    counts: IntArray
    left_out: Mapping[str, int]
    _columns: Columns = field(repr=False)

    @classmethod
    def read(
        cls, labels: Path, images: Path | None = None, *, agnostic: bool = False, fraction: float = 1.0, seed: int = 42
    ) -> Labeled:
        """Read a COCO file, or the folder of ``annofree pseudo-label``, whose info says where the images are.

        ``images`` is the folder that file names count from; with ``agnostic`` every name becomes "object"; of the images
        the share ``fraction`` is taken, at least one, by ``seed``.  Masks may be polygons or run lengths.  Raises InputError
        for files that cannot be read or hold no images or no masks, and for a fraction outside 0 .. 1.
        """
        if not 0 < fraction <= 1:
            raise InputError(f"expected a share of the images over 0, up to 1, got {fraction:g}")
        path = find_labels_file(labels)
        root = images if images is not None else _root(path)
        if not root.is_dir():
            raise InputError(f"expected the folder of the images at {root}, and there is none; name it as the images")
        file = CocoReading(path, fraction, seed, root)
        rows, columns, counts = file.list_rows(), file.gather_columns(agnostic), file.count_instances()
        sizes = np.array([(row["height"], row["width"]) for row in rows], np.int64).reshape(-1, 2)
        repeats = np.array([row.get("repeat", 1.0) for row in rows], np.float32)
        names = (AGNOSTIC,) if agnostic else file.list_names()
        return cls(names, tuple(file.ids), root, sizes, repeats, counts, file.left_out, columns)

    @property
    def scores(self) -> FloatArray:
        """The scores of all instances, whatever their image, 1 in ground truth."""
        return self._columns.scores

    def __len__(self) -> int:
        return len(self.ids)

    def open(self, index: int) -> Example:
        """Read an image and decode its masks.

        Raises ImageError for an image that cannot be read, InputError for one of another size than its masks.
        """
        image, truth = self.read_image(index), self.read_instances(index)
        if image.size != truth.size:
            raise InputError(
                f"expected {image.id} to be of the size (H, W) {truth.size} that its labels have, got {image.size}; "
                "name the folder that has the labelled images"
            )
        return Example(image.pixels, truth.masks, truth.boxes, truth.class_ids, truth.scores)

    def read_image(self, index: int) -> Image:
        """Read an image alone."""
        name = self.ids[index]
        return read_place(str(find_image(self.root, name) or f"{self.root}/{name}"), name)

    def read_instances(self, index: int) -> Detections:
        """The instances of an image alone, masks as run lengths, in the order of the file."""
        chosen, size = self._columns.find_rows(index), self._size(index)
        rles = tuple({"size": list(size), "counts": self._columns.masks[i]} for i in chosen)
        return Detections(
            size, self.names, self._columns.class_ids[chosen], self._columns.scores[chosen], compute_rle_boxes(rles), rles
        )

    def compute_fingerprint(self) -> str:
        """Tell these labels from others: images, sizes, repeats, names and every mask, in 16 hex digits."""
        digest = hashlib.sha256(json.dumps([self.names, self.ids]).encode())
        for values in (self.sizes, self.repeats, self.counts):
            digest.update(np.ascontiguousarray(values).tobytes())
        for index in range(len(self)):
            for i in self._columns.find_rows(index):
                digest.update(b"%d %d " % (self._columns.class_ids[i], len(self._columns.masks[i])) + self._columns.masks[i])
        return digest.hexdigest()[:16]

    def _size(self, index: int) -> tuple[int, int]:
        height, width = self.sizes[index].tolist()
        return height, width


def find_labels_file(labels: Path) -> Path:
    """Return the COCO file of labels: ``labels`` itself, or labels.json in it."""
    if labels.is_dir() and not (labels / "labels.json").is_file():
        raise InputError(f"expected labels.json in {labels}, which `annofree pseudo-label` writes, or name a COCO JSON file")
    return labels / "labels.json" if labels.is_dir() else labels


def read_info(path: Path) -> dict[str, Any]:
    """Return the info at the start of a COCO file, {} if there is none, without reading the rest.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     place = Path(folder) / "a.json"
    ...     _ = place.write_text('{"info": {"by": "me"}, "images": []}')
    ...     read_info(place)
    {'by': 'me'}
    """
    for length in _HEADS:
        try:
            with open_text(path) as file:
                head = file.read(length).removeprefix("{").lstrip()
            if head.startswith('"info":'):
                info, _ = json.JSONDecoder().raw_decode(head.removeprefix('"info":').lstrip())
                return dict(info) if isinstance(info, dict) else {}
        except OSError as problem:
            raise InputError(f"expected a COCO JSON file at {path}, but it cannot be read: {problem.strerror}") from None
        except ValueError:
            continue  # longer than this, or damaged, which reading the lists will tell
    return {}


def _root(path: Path) -> Path:
    told = read_info(path).get("images")
    if not isinstance(told, str):
        raise InputError(f"expected the folder that the file names of {path} count from, for it does not say; name the images")
    return Path(told)
