"""What was found in one image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from annofree.errors import InputError
from annofree.ops.rle import RLE, compute_rle_areas, compute_rle_boxes, decode_rles, encode_rles
from annofree.structures.arrays import BoolArray, FloatArray, IntArray, to_names
from annofree.structures.coco_rows import Categories, read_columns, to_rows
from annofree.structures.detection_checks import check_detections, check_masks
from annofree.structures.lazy_imports import import_package, load_notebook_function
from annofree.structures.selection import Selection, select_rows

if TYPE_CHECKING:
    import PIL.Image

    from annofree.structures.image import Image

__all__ = ["Detections"]

_NAMED, _LONGEST = 5, 30  # names that the one line lists, and letters of each


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """What was found in one image, strongest first.

    ``size`` (H, W); ``class_ids`` (N) int64 into ``names``; ``scores`` (N) float32 in 0 .. 1; ``boxes`` (N, 4) float32
    x0 y0 x1 y1 px, end-exclusive; ``rles`` (N) the masks in COCO's compressed run lengths, counts as bytes.

    An index, a slice, a list of indices or a boolean array select; an iteration gives detections of length 1.  Two are equal
    where size, names and all rows are, to the bit and in order, masks by their run lengths; so they are no keys.
    Raises InputError for columns that do not belong together, and for ids, scores, boxes or masks out of their range.

    >>> one = Detections.from_masks(np.ones((1, 2, 3), bool), [0], [0.5], ["dog"])
    >>> len(one), one.boxes.tolist(), one.to_coco(image_id=7)[0]["bbox"]
    (1, [[0.0, 0.0, 3.0, 2.0]], [0.0, 0.0, 3.0, 2.0])
    """

    size: tuple[int, int]
    names: tuple[str, ...]
    class_ids: IntArray
    scores: FloatArray
    boxes: FloatArray
    rles: tuple[RLE, ...]

    def __post_init__(self) -> None:
        check_detections(self)

    @classmethod
    def from_masks(
        cls, masks: BoolArray, class_ids: Sequence[int] | IntArray, scores: Sequence[float] | FloatArray, names: Sequence[str]
    ) -> Detections:
        """Build from masks (N, H, W): empty masks are dropped, boxes are tight, the order is by falling score.

        Raises InputError for masks that are not bool, other counts of ids and scores, and what no detection can have.
        """
        check_masks(masks, len(class_ids), len(scores))
        rles = encode_rles(masks)
        ids, values = np.asarray(class_ids, np.int64), np.asarray(scores, np.float32)
        filled = np.flatnonzero(masks.any((1, 2)))
        order = filled[np.argsort(-values[filled], kind="stable")]
        kept = tuple(rles[i] for i in order)
        return cls((masks.shape[1], masks.shape[2]), to_names(names), ids[order], values[order], compute_rle_boxes(kept), kept)

    @classmethod
    def from_coco(cls, rows: Iterable[Mapping[str, Any]], categories: Categories, size: tuple[int, int]) -> Detections:
        """Build from COCO annotations of one image of ``size`` (H, W), in their order; polygons and run lengths are read.

        ``categories`` are names, numbered from 1 as ``to_coco`` does it, names by number, or COCO's list of them.  A row
        without a score has 1, one without a box that of its mask.  Raises InputError for rows of several images, crowds, rows
        without a mask, and categories that are not listed.

        >>> found = Detections.from_masks(np.ones((1, 2, 3), bool), [1], [0.5], ["dog", "cat"])
        >>> Detections.from_coco(found.to_coco(), ["dog", "cat"], (2, 3)) == found
        True
        """
        return cls(size, *read_columns(rows, categories, size))

    @classmethod
    def none(cls, size: tuple[int, int], names: Sequence[str]) -> Detections:
        """Nothing found."""
        return cls.from_masks(np.zeros((0, *size), bool), [], [], names)

    @classmethod
    def merge(cls, parts: Iterable[Detections]) -> Detections:
        """Join what was found in one image, by falling score, of equals the first first; the names of all, each once.

        What covers the same pixels twice stays twice.  Raises InputError for no parts and for parts of two sizes.

        >>> full, weak, strong = np.ones((1, 2, 3), bool), [0.5], [0.75]
        >>> parts = Detections.from_masks(full, [0], weak, ["dog"]), Detections.from_masks(full, [0], strong, ["cat"])
        >>> Detections.merge(parts)
        Detections(2 of 3x2: 1 cat, 1 dog; scores 0.50–0.75)
        """
        parts = list(parts)
        sizes = {part.size for part in parts}
        if len(sizes) != 1:
            raise InputError(f"expected detections of one size to merge, got {sorted(sizes) or 'none'}")
        names = tuple(dict.fromkeys(name for part in parts for name in part.names))
        named = [part.with_names(names) for part in parts]
        columns = [np.concatenate([getattr(p, column) for p in named]) for column in ("class_ids", "scores", "boxes")]
        both = cls(parts[0].size, names, columns[0], columns[1], columns[2], tuple(rle for p in named for rle in p.rles))
        return both[np.argsort(-both.scores, kind="stable")]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, keep: Selection) -> Detections:
        """Select by an index, a slice, indices or a boolean array; an index beyond the end is an IndexError."""
        rows = select_rows(keep, len(self))
        rles = tuple(self.rles[i] for i in rows)
        return Detections(self.size, self.names, self.class_ids[rows], self.scores[rows], self.boxes[rows], rles)

    def __iter__(self) -> Iterator[Detections]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Detections):
            return NotImplemented
        alike = (self.size, self.names, len(self)) == (other.size, other.names, len(other))
        columns = ((getattr(self, n), getattr(other, n)) for n in ("class_ids", "scores", "boxes"))
        masks = zip(self.rles, other.rles, strict=False)
        return alike and all(np.array_equal(*pair) for pair in columns) and all(a["counts"] == b["counts"] for a, b in masks)

    @property
    def masks(self) -> BoolArray:
        """The masks, (N, H, W) bool, decoded anew at each call."""
        return decode_rles(self.rles, self.size)

    @property
    def areas(self) -> IntArray:
        """Pixels in each mask, (N)."""
        return compute_rle_areas(self.rles)

    @property
    def labels(self) -> npt.NDArray[np.str_]:
        """The class name of each detection, (N), so that ``found[found.labels == "dog"]`` are the dogs."""
        return np.array(self.names, str)[self.class_ids]

    def with_names(self, names: Sequence[str]) -> Detections:
        """Number the same classes by another list of names, which has those of all that was found.

        Raises InputError where it lacks one.  To call classes otherwise, ``dataclasses.replace(found, names=...)``.

        >>> Detections.from_masks(np.ones((1, 2, 3), bool), [0], [0.5], ["dog"]).with_names(["cat", "dog"]).class_ids.tolist()
        [1]
        """
        names = to_names(names)
        places = {name: k for k, name in reversed(list(enumerate(names)))}
        absent = sorted({name for k in np.unique(self.class_ids) if (name := self.names[k]) not in places})
        if absent:
            raise InputError(f"expected names with all that was found, got none for {', '.join(map(repr, absent))}; add it")
        own = np.array([places.get(name, -1) for name in self.names], np.int64)
        return replace(self, names=names, class_ids=own[self.class_ids])

    def to_coco(self, image_id: int = 1, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Return COCO annotations with text RLE; categories are numbered from 1 in vocabulary order unless given."""
        return to_rows(self, image_id, category_ids)

    def to_supervision(self) -> Any:
        """Return ``supervision.Detections``, names as its ``class_name``; raises MissingError without that package."""
        about = {"class_name": self.labels}
        made = import_package("supervision", "to_supervision").Detections
        return made(self.boxes, mask=self.masks, confidence=self.scores, class_id=self.class_ids, data=about)

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame``, a row a detection, boxes and areas in px; raises MissingError without that package."""
        corners = dict(zip(("x0", "y0", "x1", "y1"), self.boxes.T, strict=True))
        about = {"name": self.labels.tolist(), "class_id": self.class_ids, "score": self.scores}
        return import_package("pandas", "to_pandas").DataFrame({**about, **corners, "area": self.areas})

    def draw(
        self, image: Image | npt.NDArray[np.uint8] | None = None, min_score: float = 0.0, limit: int = 50
    ) -> PIL.Image.Image:
        """Draw the ``limit`` strongest that score at least ``min_score`` over their image, over gray where none is given.

        Raises InputError when the image is of another size.
        """
        picture: PIL.Image.Image = load_notebook_function("render_detections")(self, image, min_score, limit)
        return picture

    def __repr__(self) -> str:
        """One line: how many of an image of width x height, how many of each name, and the scores from least to largest."""
        head = f"Detections({len(self)} of {self.size[1]}x{self.size[0]}"
        if not len(self):
            return f"{head})"
        low, high = f"{self.scores.min():.2f}", f"{self.scores.max():.2f}"
        return f"{head}: {_counted(self.labels.tolist())}; score{f's {low}–{high}' if low != high else f' {low}'})"

    def _repr_png_(self) -> bytes:
        png: bytes = load_notebook_function("render_detections_png")(self)
        return png

    def _repr_html_(self) -> str:
        page: str = load_notebook_function("render_detections_html")(self)
        return page


def _counted(labels: Sequence[str]) -> str:
    counts = Counter(labels).most_common()
    told = [f"{count} {' '.join(name.split())[:_LONGEST]}" for name, count in counts[:_NAMED]]
    rest = sum(count for _, count in counts[_NAMED:])
    return ", ".join([*told, f"{rest} of {len(counts) - _NAMED} more names"] if rest else told)
