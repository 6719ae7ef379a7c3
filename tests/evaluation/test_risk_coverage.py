"""The risk-coverage curve against a slow twin that tries every order."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annofree.errors import InputError
from annofree.evaluation.metrics.risk_coverage import bootstrap, compute_aurc, compute_caught_error, compute_risk_coverage
from annofree.testing.tolerances import assert_close

PAIRS = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.6, 1.0]), st.integers(0, 2)), min_size=1, max_size=6)


def slow(errors: list[float], risks: list[int]) -> list[float]:
    """The mean over all orders that the risks allow of the mean error of the first 1, 2, .. images."""
    orders = [o for o in permutations(range(len(errors))) if all(risks[a] <= risks[b] for a, b in pairwise(o))]
    curves = [[sum(errors[i] for i in order[:n]) / n for n in range(1, len(order) + 1)] for order in orders]
    return [sum(column) / len(curves) for column in zip(*curves, strict=True)]


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_it_is_the_slow_twins(pairs: list[tuple[float, int]]) -> None:
    errors, risks = [e for e, _ in pairs], [r for _, r in pairs]
    assert_close(compute_risk_coverage(errors, risks), slow(errors, risks))
    assert_close(compute_aurc(errors, risks), np.mean(slow(errors, risks)))
    assert_close(compute_aurc(errors, [0] * len(errors)), np.mean(errors))  # a random order
    assert compute_aurc(errors, errors) <= compute_aurc(errors, risks) + 1e-9  # the oracle, but for rounding


def test_what_the_riskiest_hold() -> None:
    assert compute_caught_error([1, 0, 0, 1], [4, 1, 2, 3], 0.5) == 1.0 and compute_caught_error([0, 0], [1, 2], 0.5) == 0.0
    assert compute_caught_error([1, 0, 0, 1], [0, 0, 0, 0], 0.25) == 0.25


def test_intervals_hold_the_area_and_tell_better_from_worse() -> None:
    rng = np.random.default_rng(0)
    errors = rng.random(200)
    good, bad = errors + rng.normal(0, 0.1, 200), rng.random(200)
    low, high = bootstrap(errors, good, samples=200)
    assert low < compute_aurc(errors, good) < high and bootstrap(errors, good, samples=200) == (low, high)
    assert bootstrap(errors, good, bad, samples=200)[1] < 0 < bootstrap(errors, bad, good, samples=200)[0]
    assert bootstrap(errors, good, good, samples=20) == (0.0, 0.0)


@pytest.mark.parametrize(("errors", "risks"), [([], []), ([1.0], [1.0, 2.0]), ([float("nan")], [1.0]), ([1.0], [float("inf")])])
def test_what_cannot_be_ranked_is_refused(errors: list[float], risks: list[float]) -> None:
    with pytest.raises(InputError, match="finite"):
        compute_risk_coverage(errors, risks)
