"""One confusion matrix over a data set, added up image by image.

A pixel whose truth is void counts nowhere.  A labeled pixel that the prediction leaves void is a miss of its true class
and a false positive of none.  K classes; rows are ground truth, columns predictions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from annofree.errors import InputError
from annofree.structures import VOID

__all__ = ["Confusion", "Counts", "Ratios", "divide_or_nan"]

Counts = npt.NDArray[np.int64]
Ratios = npt.NDArray[np.float64]

_PIXELS_AT_ONCE = 1 << 22


@dataclass
class Confusion:
    """Pixel counts by true and predicted class.

    ``counts`` (K, K) int64, and ``unnamed`` (K,) int64, labeled pixels that the prediction leaves void; ``void`` counts the
    ignored pixels.  Memory depends on K only.

    >>> matrix = Confusion.of(2)
    >>> matrix.add(np.array([[0, 1, 1, -1]]), np.array([[0, 1, 0, 1]]))
    >>> matrix.counts.tolist(), matrix.void
    ([[1, 0], [1, 1]], 1)
    """

    counts: Counts
    unnamed: Counts
    void: int = 0

    @classmethod
    def of(cls, classes: int) -> Confusion:
        """Start with nothing counted, for K classes."""
        return cls(np.zeros((classes, classes), np.int64), np.zeros(classes, np.int64))

    def add(self, truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> None:
        """Count one image: class indices of equal shape, VOID (-1) for none.

        Raises InputError for different shapes, non-integer arrays, and indices outside -1 .. K - 1.
        """
        _check(truth, predicted, len(self.unnamed))
        flat, named = truth.reshape(-1), predicted.reshape(-1)
        for start in range(0, flat.size, _PIXELS_AT_ONCE):  # pairs of 64 bits of a vast image would take much memory
            piece = slice(start, start + _PIXELS_AT_ONCE)
            self._count(flat[piece].astype(np.int64), named[piece].astype(np.int64))

    def _count(self, truth: Counts, predicted: Counts) -> None:
        columns = len(self.unnamed) + 1  # the last is for pixels that the prediction leaves void
        labeled = truth != VOID
        pairs = truth[labeled] * columns + predicted[labeled] % columns  # -1 is the last
        table = np.bincount(pairs, minlength=(columns - 1) * columns).reshape(-1, columns)
        self.counts += table[:, :-1]
        self.unnamed += table[:, -1]
        self.void += int(truth.size - pairs.size)

    def __iadd__(self, other: Confusion) -> Confusion:
        """Add another matrix; raises InputError for another K."""
        if other.counts.shape != self.counts.shape:
            raise InputError(f"expected a matrix of {len(self.unnamed)} classes, got one of {len(other.unnamed)}")
        self.counts += other.counts
        self.unnamed += other.unnamed
        self.void += other.void
        return self

    @property
    def truth(self) -> Counts:
        """Labeled pixels of each class, (K,)."""
        return np.asarray(self.counts.sum(axis=1) + self.unnamed)

    @property
    def iou(self) -> Ratios:
        """Intersection over union of each class, (K,), NaN for classes in neither ground truth nor predictions."""
        hits = np.diagonal(self.counts)
        return divide_or_nan(hits, self.truth + self.counts.sum(axis=0) - hits)

    @property
    def recall(self) -> Ratios:
        """Per-class pixel accuracy, (K,), NaN for classes without pixels."""
        return divide_or_nan(np.diagonal(self.counts), self.truth)


def _check(truth: npt.NDArray[Any], predicted: npt.NDArray[Any], classes: int) -> None:
    if truth.shape != predicted.shape:
        raise InputError(
            f"expected a prediction of the truth's size {truth.shape}, got {predicted.shape}; "
            "was it made from a resized or turned image?"
        )
    for what, labels in (("truth", truth), ("prediction", predicted)):
        if labels.dtype.kind not in "iu":
            raise InputError(f"expected {what} as whole numbers, got {labels.dtype}")
        if labels.size and (labels.min() < VOID or labels.max() >= classes):
            raise InputError(f"expected {what} from {VOID} to {classes - 1}, got {labels.min()} to {labels.max()}")


def divide_or_nan(part: npt.NDArray[Any], whole: Counts) -> Ratios:
    """Divide, with NaN where the whole is 0."""
    return np.asarray(np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0), np.float64)
