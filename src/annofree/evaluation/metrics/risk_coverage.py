"""Does a risk rank images as their errors do?  The risk-coverage curve and the area under it.

Keep the least risky images first: the curve is the mean error of those that are kept, over the share that is kept; the
area under it (AURC; Geifman, Uziel and El-Yaniv, ICLR 2019) is small where the errors are left for last.  A random order has
the mean error at every share, so its expected area is the mean error; the order by the errors themselves has the least area
that any order can have.  Images of equal risk count as in a random order among themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from annofree.errors import InputError

__all__ = ["bootstrap", "compute_aurc", "compute_caught_error", "compute_risk_coverage"]

Floats = npt.NDArray[np.float64]


def compute_risk_coverage(errors: Sequence[float] | Floats, risks: Sequence[float] | Floats) -> Floats:
    """Return the expected mean error (N) of the 1, 2, .. N least risky images.

    Raises InputError unless there are as many errors as risks, one at least, all finite.

    >>> compute_risk_coverage([1.0, 0.0], [0.9, 0.1]).tolist()
    [0.0, 0.5]
    """
    wrong, risky = np.asarray(errors, np.float64), np.asarray(risks, np.float64)
    if wrong.ndim != 1 or wrong.shape != risky.shape or not len(wrong) or not np.isfinite([*wrong, *risky]).all():
        raise InputError(f"expected a finite error and a finite risk an image, got {wrong.shape} and {risky.shape}")
    return np.asarray(np.cumsum(_expected(wrong, risky)) / np.arange(1, len(wrong) + 1), np.float64)


def _expected(errors: Floats, risks: Floats) -> Floats:
    """Errors by rising risk; each in a group of equal risk is the mean of its group, as in all orders of it on average."""
    _, group, sizes = np.unique(risks, return_inverse=True, return_counts=True)
    means = np.bincount(group, weights=errors) / sizes
    return np.repeat(means, sizes)


def compute_aurc(errors: Sequence[float] | Floats, risks: Sequence[float] | Floats) -> float:
    """Return the area under the risk-coverage curve: the mean of it over 1 .. N kept images.  Less is better.

    >>> compute_aurc([1.0, 0.0], [0.9, 0.1]), compute_aurc([1.0, 0.0], [0.5, 0.5])
    (0.25, 0.5)
    """
    return float(compute_risk_coverage(errors, risks).mean())


def compute_caught_error(errors: Sequence[float] | Floats, risks: Sequence[float] | Floats, share: float) -> float:
    """Return the part of all error that the riskiest ``share`` of the images holds, rounded to whole images.

    >>> compute_caught_error([1.0, 0.5, 0.5, 0.0], [4, 3, 2, 1], 0.25)
    0.5
    """
    ordered = _expected(np.asarray(errors, np.float64), np.asarray(risks, np.float64))
    first = round(share * len(ordered))
    total = float(ordered.sum())
    return float(ordered[len(ordered) - first :].sum()) / total if total else 0.0


def bootstrap(
    errors: Sequence[float] | Floats,
    risks: Sequence[float] | Floats,
    against: Sequence[float] | Floats | None = None,
    *,
    samples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 2.5 and 97.5 percentiles of the area over images drawn anew with replacement.

    With ``against``, other risks of the same images, it is the area of ``risks`` less theirs: an interval below zero means
    that ``risks`` ranks better.
    """
    wrong, risky = np.asarray(errors, np.float64), np.asarray(risks, np.float64)
    other = None if against is None else np.asarray(against, np.float64)
    rng = np.random.default_rng(seed)
    areas = []
    for drawn in rng.integers(0, len(wrong), (samples, len(wrong))):
        area = compute_aurc(wrong[drawn], risky[drawn])
        areas.append(area if other is None else area - compute_aurc(wrong[drawn], other[drawn]))
    low, high = np.percentile(areas, [2.5, 97.5])
    return float(low), float(high)
