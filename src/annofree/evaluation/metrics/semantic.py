"""mIoU by its definition: one confusion matrix over the whole data set, added up image by image.

Pixels with void ground truth are ignored.  A class with neither ground truth nor predictions is excluded from the mean; one
predicted but never true counts 0.  A labeled pixel that the prediction leaves void is a miss of its true class and a
false positive of none.  Variants of papers and libraries are named options; nothing is rounded.

Conventions: K classes; rows are ground truth, columns predictions; scores are fractions in 0 .. 1, None if
undefined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from annofree.errors import InputError
from annofree.evaluation.metrics.confusion import Confusion, Counts, Ratios, divide_or_nan

__all__ = ["Absent", "SemanticScorer", "SemanticScores"]

Absent = Literal["skip", "zero"]
"""What a class with neither truth nor prediction in the whole data set does to the mean: nothing, or counts as 0."""

_SIZES = {"S": 5, "MS": 25, "ML": 50, "L": 100}  # percent of an image, at most


@dataclass(frozen=True)
class SemanticScores:
    """Scores of a confusion matrix, and pixel counts.

    ``mean_iou`` is over all classes, ``mean_iou_things`` over those that are not background (the background still takes part
    in the matrix), and ``absent`` says what both do with classes that are nowhere.  ``pixel_accuracy`` is over labeled
    pixels; ``mean_accuracy`` is the mean recall over classes with truth; ``weighted_iou`` weighs IoU by truth;
    ``zero_rate`` is the part of the classes with truth whose IoU is 0.  ``per_image_iou`` averages within each image, over
    the classes of its truth and prediction, and then over images, as some libraries do: it is another measure, not an
    estimate of ``mean_iou``.  ``by_size`` is ImageNet-S's mean IoU of classes that fill at most 5, 25, 50 and 100 percent of
    their image.  ``iou``, ``accuracy`` and ``iou_per_image`` are by class.
    """

    mean_iou: float | None
    mean_iou_things: float | None
    pixel_accuracy: float | None
    mean_accuracy: float | None
    weighted_iou: float | None
    zero_rate: float | None
    per_image_iou: float | None
    by_size: dict[str, float | None]
    absent: Absent
    n_images: int
    n_pixels: int
    n_void: int
    n_true_classes: int
    iou: dict[str, float | None]
    accuracy: dict[str, float | None]
    iou_per_image: dict[str, float | None]

    def to_json_dict(self) -> dict[str, Any]:
        """Return the scores as plain values: fractions, None (JSON null) where there was undefined."""
        return asdict(self)


@dataclass
class SemanticScorer:
    """Scores of a data set, gathered image by image in memory that depends on the number of ``names`` alone.

    ``background`` is the index of the background class, or None.

    >>> scorer = SemanticScorer(("background", "dog", "cat"), background=0)
    >>> scorer.add(np.array([[0, 1], [1, -1]]), np.array([[0, 1], [0, 2]]))
    >>> scorer.compute_scores().iou
    {'background': 0.5, 'dog': 0.5, 'cat': None}
    >>> scorer.compute_scores().mean_iou, round(scorer.compute_scores(absent="zero").mean_iou, 3)
    (0.5, 0.333)
    """

    names: tuple[str, ...]
    background: int | None = None
    confusion: Confusion = field(init=False)
    images: int = field(init=False, default=0)
    _per_image: Ratios = field(init=False)
    _pictures_with: Counts = field(init=False)
    _sum_of_means: float = field(init=False, default=0.0)
    _pictures: int = field(init=False, default=0)
    _sizes: dict[str, Confusion] = field(init=False)

    def __post_init__(self) -> None:
        self.confusion = Confusion.of(len(self.names))
        self._per_image = np.zeros(len(self.names))
        self._pictures_with = np.zeros(len(self.names), np.int64)
        sizes = _SIZES if self.background is not None else ()
        self._sizes = {name: Confusion.of(len(self.names)) for name in sizes}

    def add(self, truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> None:
        """Count one image; raises InputError as ``Confusion.add`` does."""
        image = Confusion.of(len(self.names))
        image.add(truth, predicted)
        iou = image.iou
        present = ~np.isnan(iou)
        self._per_image[present] += iou[present]
        self._pictures_with += present
        if present.any():
            self._sum_of_means += float(iou[present].mean())
            self._pictures += 1
        self._add_by_size(image)
        self.confusion += image
        self.images += 1

    def _add_by_size(self, image: Confusion) -> None:
        """Count an image's classes by how much of it they fill, each together with its background pixels (ImageNet-S)."""
        total = image.truth.sum()
        percent = -(-100 * image.truth // total) if total else image.truth
        lower = 0
        for name, upper in _SIZES.items() if self._sizes else ():
            rows = (percent > lower) & (percent <= upper)
            rows[self.background] = False
            if rows.any():
                rows[self.background] = True
                chosen = self._sizes[name]
                chosen.counts[rows] += image.counts[rows]
                chosen.unnamed[rows] += image.unnamed[rows]
            lower = upper

    def __iadd__(self, other: SemanticScorer) -> SemanticScorer:
        """Add what another scorer has gathered, of other images; raises InputError when it has other names."""
        if (other.names, other.background) != (self.names, self.background):
            raise InputError(f"expected scores of the same {len(self.names)} names, got others ({len(other.names)})")
        self.confusion += other.confusion
        self.images += other.images
        self._per_image += other._per_image
        self._pictures_with += other._pictures_with
        self._sum_of_means += other._sum_of_means
        self._pictures += other._pictures
        for name, matrix in other._sizes.items():
            self._sizes[name] += matrix
        return self

    def compute_scores(self, absent: Absent = "skip") -> SemanticScores:
        """Return the scores so far."""
        matrix, truth = self.confusion, self.confusion.truth
        iou = np.nan_to_num(matrix.iou) if absent == "zero" else matrix.iou
        things = np.ones(len(self.names), bool)
        if self.background is not None:
            things[self.background] = False
        total, true = int(truth.sum()), truth > 0
        return SemanticScores(
            mean_iou=_mean(iou),
            mean_iou_things=_mean(iou[things]),
            pixel_accuracy=float(np.trace(matrix.counts) / total) if total else None,
            mean_accuracy=_mean(matrix.recall),
            weighted_iou=float((matrix.iou[true] * truth[true]).sum() / total) if total else None,
            zero_rate=_mean((matrix.iou[true] == 0).astype(np.float64)),
            per_image_iou=self._sum_of_means / self._pictures if self._pictures else None,
            by_size={name: _mean(m.iou[m.truth > 0]) for name, m in self._sizes.items()},
            absent=absent,
            n_images=self.images,
            n_pixels=total,
            n_void=matrix.void,
            n_true_classes=int(true.sum()),
            iou=_by_name(self.names, matrix.iou),
            accuracy=_by_name(self.names, matrix.recall),
            iou_per_image=_by_name(self.names, divide_or_nan(self._per_image, self._pictures_with)),
        )


def _mean(values: Ratios) -> float | None:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else None


def _by_name(names: Sequence[str], values: Ratios) -> dict[str, float | None]:
    return {name: None if np.isnan(v) else float(v) for name, v in zip(names, values, strict=True)}
