"""The nouns of the house: what flows from one room to the next.

Sizes are (H, W).  Boxes are x0 y0 x1 y1 in float pixels, end-exclusive, so COCO's width is x1 - x0.  Images are uint8
RGB.  Class ids index the vocabulary.  Shapes use one alphabet: B batch, N fragments or detections, K classes,
D embedding, H W pixels, h w feature cells, P prompts, M masks a prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from faster_coco_eval import mask as coco_mask
from torch import Tensor

from annofree.errors import InputError

__all__ = ["VOID", "ClueMap", "Detections", "FeatureMap", "Fragments", "Image", "LabelMap", "Vocabulary"]

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
RLE = dict[str, Any]

_LONGEST_NAME = 200

VOID = -1
"""The label of a pixel that belongs to no name and is not scored; files write it as 255, or 65535 where ids need 16 bits."""


@dataclass(frozen=True, eq=False)
class Image:
    """One picture: ``pixels`` (H, W, 3) uint8 RGB, upright, and an ``id`` by which files and errors name it.

    Raises InputError for any other array.

    >>> Image(np.zeros((2, 3, 3), np.uint8)).size
    (2, 3)
    """

    pixels: npt.NDArray[np.uint8]
    id: str = "image"

    def __post_init__(self) -> None:
        p = self.pixels
        if not (isinstance(p, np.ndarray) and p.dtype == np.uint8 and p.ndim == 3 and p.shape[2] == 3 and p.size):
            got = f"{p.dtype} {p.shape}" if isinstance(p, np.ndarray) else type(p).__name__
            raise InputError(f"expected a picture as a (H, W, 3) uint8 RGB array, got {got}")

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True)
class Vocabulary:
    """The names that are asked for, each with other words for the same thing.

    ``names`` (K) are what results are called; ``synonyms`` (K) hold the words whose text features are averaged, the name
    itself first.  Raises InputError for no, empty, doubled or endless names.

    >>> Vocabulary.of("dog, cat: kitten | tabby").synonyms
    (('dog',), ('cat', 'kitten', 'tabby'))
    """

    names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, classes: str | Iterable[str] | Vocabulary) -> Vocabulary:
        """Read a vocabulary from 'dog, cat: kitten | tabby', or from a list of such entries."""
        if isinstance(classes, Vocabulary):
            return classes
        entries = classes.split(",") if isinstance(classes, str) else list(classes)
        return cls.from_entries(_entry(e) for e in entries)

    @classmethod
    def from_entries(cls, entries: Iterable[tuple[str, ...]]) -> Vocabulary:
        """Build a vocabulary from word tuples, the name first."""
        words = tuple(entries)
        return cls(tuple(w[0] for w in words), words)

    def __post_init__(self) -> None:
        if not self.names:
            raise InputError('expected at least one class name, got none; for example --classes "dog, traffic light"')
        for name in (word for words in self.synonyms for word in words):
            if not name:
                raise InputError(f"a class name is empty among {list(self.names)}; remove the extra comma or bar")
            if len(name) > _LONGEST_NAME:
                raise InputError(
                    f"a class name has {len(name)} characters, expected at most {_LONGEST_NAME}: {name[:40]!r}...; "
                    "are the names separated by commas?"
                )
        doubled = sorted({n for n in self.names if self.names.count(n) > 1})
        if doubled:
            raise InputError(f"expected each class name once, got {', '.join(map(repr, doubled))} more than once")

    def __len__(self) -> int:
        return len(self.names)


def _entry(text: str) -> tuple[str, ...]:
    name, colon, rest = text.partition(":")
    return tuple(" ".join(word.split()) for word in ([name, *rest.split("|")] if colon else [name]))


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Features of an image on a grid: ``values`` (D, h, w), whose cells evenly cover the whole image of ``size`` (H, W).

    Where a model pads the image to whole patches, ``window`` (H', W') is what the cells cover, from the top left corner.
    """

    values: Tensor
    size: tuple[int, int]
    window: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class ClueMap:
    """How much each cell suggests each class: ``values`` (K, h, w) over the whole image of ``size`` (H, W).

    ``meaning`` is what a value is: a cosine, or an activation that runs from 0 to 1 over each map.
    """

    values: Tensor
    size: tuple[int, int]
    meaning: Literal["cosine", "activation"]


@dataclass(frozen=True, eq=False)
class Fragments:
    """Pieces of an image that have no name yet.

    ``labels`` (h, w) int64 holds 1 .. N, 0 where there is no piece; ``area`` (N) in cells; ``boxes`` (N, 4) x0 y0 x1 y1 in
    cells, end-exclusive; ``cluster`` (N) the cluster, from 1, that each was cut from.
    """

    labels: Tensor
    area: Tensor
    boxes: Tensor
    cluster: Tensor

    def __len__(self) -> int:
        return len(self.area)


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one image, strongest first.

    ``size`` (H, W); ``class_ids`` (N) int64 into ``names``; ``scores`` (N) float32 in 0 .. 1; ``boxes`` (N, 4) float32
    x0 y0 x1 y1 px, end-exclusive; ``rles`` (N) the masks in COCO's compressed run lengths, counts as bytes.

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

    @classmethod
    def from_masks(
        cls, masks: BoolArray, class_ids: Sequence[int] | IntArray, scores: Sequence[float] | FloatArray, names: Sequence[str]
    ) -> Detections:
        """Build from masks (N, H, W): empty masks are dropped, boxes are tight, the order is by falling score."""
        if masks.ndim != 3 or len(masks) != len(class_ids) or len(masks) != len(scores):
            raise InputError(
                f"expected masks (N, H, W) with N class ids and scores, got {masks.shape}, {len(class_ids)}, {len(scores)}"
            )
        rles = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
        ids, values = np.asarray(class_ids, np.int64), np.asarray(scores, np.float32)
        filled = np.flatnonzero(masks.any((1, 2)))
        order = filled[np.argsort(-values[filled], kind="stable")]
        kept = tuple(rles[i] for i in order)
        xywh = coco_mask.toBbox(list(kept)).reshape(-1, 4)
        boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1).astype(np.float32)
        return cls((masks.shape[1], masks.shape[2]), tuple(names), ids[order], values[order], boxes, kept)

    @classmethod
    def none(cls, size: tuple[int, int], names: Sequence[str]) -> Detections:
        """Nothing found."""
        return cls.from_masks(np.zeros((0, *size), bool), [], [], names)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, keep: BoolArray | IntArray | slice) -> Detections:
        """Select by a boolean mask, by indices or by a slice."""
        chosen = np.arange(len(self))[keep]
        rles = tuple(self.rles[i] for i in chosen)
        return Detections(self.size, self.names, self.class_ids[keep], self.scores[keep], self.boxes[keep], rles)

    @property
    def masks(self) -> BoolArray:
        """The masks, (N, H, W) bool, decoded anew at each call."""
        if not self.rles:
            return np.zeros((0, *self.size), bool)
        return np.ascontiguousarray(coco_mask.decode(list(self.rles)).transpose(2, 0, 1)).astype(bool)

    @property
    def areas(self) -> IntArray:
        """Pixels in each mask, (N)."""
        return np.asarray(coco_mask.area(list(self.rles)), np.int64).reshape(len(self))

    @property
    def labels(self) -> list[str]:
        """The class name of each detection."""
        return [self.names[i] for i in self.class_ids]

    def to_coco(self, image_id: int = 1, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Return COCO annotations with text RLE; categories are numbered from 1 in vocabulary order unless given."""
        numbers = category_ids or range(1, len(self.names) + 1)
        rows = zip(
            self.class_ids.tolist(), self.scores.tolist(), self.boxes.tolist(), self.rles, self.areas.tolist(), strict=True
        )
        return [
            {
                "image_id": image_id,
                "category_id": numbers[k],
                "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")},
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": area,
                "iscrowd": 0,
                "score": score,
            }
            for k, score, (x0, y0, x1, y1), rle, area in rows
        ]


@dataclass(frozen=True, eq=False)
class LabelMap:
    """One name a pixel: ``labels`` (H, W) int32 into ``names``, ``VOID`` where there is none.

    ``background`` is the entry of ``names`` that stands for none of the things asked for, None where every pixel gets a name.
    Raises InputError for labels that are no such array or point outside ``names``.

    >>> LabelMap(np.array([[0, 1], [1, 1]], np.int32), ("background", "dog"), background=0).shares()
    {'background': 0.25, 'dog': 0.75}
    """

    labels: npt.NDArray[np.int32]
    names: tuple[str, ...]
    background: int | None = None

    def __post_init__(self) -> None:
        a = self.labels
        if not (isinstance(a, np.ndarray) and a.dtype == np.int32 and a.ndim == 2 and a.size):
            got = f"{a.dtype} {a.shape}" if isinstance(a, np.ndarray) else type(a).__name__
            raise InputError(f"expected labels as an (H, W) int32 array, got {got}")
        if a.min() < VOID or a.max() >= len(self.names):
            raise InputError(f"expected labels from {VOID} to {len(self.names) - 1}, got {a.min()} to {a.max()}")

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.labels.shape[0], self.labels.shape[1]

    def shares(self) -> dict[str, float]:
        """The part of all pixels that each name has, for names that have any."""
        counts = np.bincount(self.labels[self.labels >= 0], minlength=len(self.names))
        return {name: float(n / self.labels.size) for name, n in zip(self.names, counts, strict=True) if n}
