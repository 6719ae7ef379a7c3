"""The logistic finds the weights that made the data, and its level is that of what is left."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from annofree.detections.verification import SIGNALS, Calibration
from annofree.errors import InputError
from annofree.training.calibration import Sample, fit_calibration

USED = ("share", "quality", "area")


def samples(count: int = 40, each: int = 60, seed: int = 0) -> list[Sample]:
    """Candidates that are right with a probability that hangs on three signals; all are left."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        signals = rng.normal(size=(each, len(SIGNALS))).astype(np.float32)
        logit = signals[:, [SIGNALS.index(name) for name in USED]] @ [2.0, -1.0, 0.5] - 0.5
        right = rng.random(each) < 1 / (1 + np.exp(-logit))
        made.append(Sample(signals, right, lambda scores: np.arange(len(scores))))
    return made


def test_the_weights_are_those_of_an_oracle() -> None:
    drawn = samples()
    found: Calibration = fit_calibration(drawn, "drawn", USED)
    x = np.concatenate([s.signals for s in drawn])[:, [SIGNALS.index(name) for name in USED]]
    oracle = LogisticRegression(C=np.inf, tol=1e-8).fit(x, np.concatenate([s.right for s in drawn]))
    assert list(found.weights) == list(USED) and found.fitted_on == "drawn"
    # a little ridge, and weights rounded to four digits
    np.testing.assert_allclose(list(found.weights.values()), oracle.coef_[0], atol=0.02)
    assert found.offset == pytest.approx(oracle.intercept_[0], abs=0.02)


def test_the_level_is_that_of_what_is_left() -> None:
    """The strongest of each image is left: it is right more often than its own logit says, or less, and the level follows."""
    first = [Sample(s.signals, s.right, lambda scores: np.array([scores.argmax()])) for s in samples(400, 10)]
    found: Calibration = fit_calibration(first, "", USED)
    kept = [(found.predict(s.signals).max(), s.right[found.predict(s.signals).argmax()]) for s in first]
    assert np.mean([p for p, _ in kept]) == pytest.approx(np.mean([r for _, r in kept]), abs=0.01)


@pytest.mark.parametrize("right", [True, False])
def test_all_right_or_none_teaches_nothing(right: bool) -> None:
    one = Sample(np.zeros((4, len(SIGNALS)), np.float32), np.full(4, right), lambda scores: np.arange(4))
    with pytest.raises(InputError, match="some candidates that are right and some that are not"):
        fit_calibration([one], "")
