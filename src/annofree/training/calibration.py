"""Fitting the logistic that turns signals into the probability of being right, on images whose truth is known.

    candidates with signals, and which are right -> logistic, a little ridge
    -> what is left once overlaps are settled -> one more scale and offset (Platt), for a choice among rivals is surer than each

N candidates of an image, S signals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from annofree.detections.verification import SIGNALS, Calibration
from annofree.errors import InputError
from annofree.structures import FloatArray, IntArray

__all__ = ["Sample", "fit_calibration"]

Floats = npt.NDArray[np.float64]
C = TypeVar("C", bound=Calibration)

_RIDGE = 3.0  # in units of standardised signals: a weight of 1 costs as much as 1.5 nats


@dataclass(frozen=True, eq=False)
class Sample:
    """The candidates of one image: ``signals`` (N, S), who is ``right`` (N), and the indices of who is left by scores (N).

    ``worth`` (N), in 0 .. 1, is what the ranking is fitted to where that is more than being right: a better mask comes first.
    """

    signals: FloatArray
    right: npt.NDArray[np.bool_]
    settled: Callable[[FloatArray], IntArray]
    worth: Floats | None = None


def fit_calibration(
    samples: Sequence[Sample],
    fitted_on: str,
    signals: Sequence[str] = SIGNALS,
    kind: type[C] = Calibration,  # type: ignore[assignment]
) -> C:
    """Fit a logistic of some ``signals`` to the samples, and set its level on what is left once overlaps are settled.

    ``kind`` is whose signals they are: an answer's, or a bank's (``detections/bank.py``).  Raises InputError where all or none
    of the candidates are right.
    """
    chosen = [kind.signals.index(name) for name in signals]
    x = np.concatenate([s.signals[:, chosen] for s in samples]).astype(np.float64)
    y = np.concatenate([s.right for s in samples])
    worth = np.concatenate([s.right if s.worth is None else s.worth for s in samples]).astype(np.float64)
    if not 0 < y.sum() < len(y):
        raise InputError(f"expected some candidates that are right and some that are not, got {int(y.sum())} of {len(y)} right")
    mean, spread = x.mean(0), x.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    fitted = _logistic((x - mean) / spread, worth, _RIDGE)
    weights, offset = fitted[:-1] / spread, float(fitted[-1] - (fitted[:-1] / spread * mean).sum())
    first = kind(dict(zip(signals, weights.tolist(), strict=True)), offset)
    left = [(s, s.settled(first.predict(s.signals))) for s in samples]
    logits = np.concatenate([s.signals[kept][:, chosen] @ weights + offset for s, kept in left])
    right = np.concatenate([s.right[kept] for s, kept in left]).astype(np.float64)
    slope, shift = _logistic(logits[:, None].astype(np.float64), right, 0.0)
    scaled = {name: round(float(w * slope), 4) for name, w in first.weights.items()}
    return kind(scaled, round(float(offset * slope + shift), 4), fitted_on)


def _logistic(x: Floats, y: Floats, ridge: float) -> Floats:
    """Weights of x (N, S) and, last, an offset, (S + 1), that make y (N), in 0 .. 1, likeliest."""

    def loss(w: Floats) -> tuple[float, Floats]:
        z = x @ w[:-1] + w[-1]
        pull = 1 / (1 + np.exp(np.clip(-z, -500, 500))) - y
        value = (y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z)).sum() + ridge / 2 * (w[:-1] ** 2).sum()
        return float(value), np.append(x.T @ pull + ridge * w[:-1], pull.sum())

    found: Floats = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 2000}).x
    return found
