"""The time that is left, by a clock that is set: every work here takes known seconds, so the true rest is known."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from annofree.apps.cli.eta import Eta, format_duration

Told = list[tuple[int, float | None, float]]
"""After each batch: its number, the seconds that are told to be left, and those that are."""


class Now:
    """A clock that is set."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def worked(batches: Sequence[float], size: int = 4, known: int = 0, ask: float = 0.2) -> tuple[Told, Eta]:
    """Do batches of so many seconds each: encode all of one, then tell of each image, ``ask`` of the seconds for all asking."""
    now = Now()
    eta, told = Eta(size, now), Told()
    total = known + size * len(batches)
    eta.update(known, total)
    for number, seconds in enumerate(batches):
        now.seconds += seconds * (1 - ask)
        for k in range(size):
            now.seconds += seconds * ask / size
            eta.update(known + size * number + k + 1, total)
        told.append((number, eta.estimate_left(), sum(batches[number + 1 :])))
    return told, eta


def errors(told: Told) -> dict[int, float]:
    """How far off it is after each batch, as a part of what is left."""
    return {n: abs(left - true) / true for n, left, true in told if left is not None and true}


@pytest.mark.parametrize("first", [2.0, 20.0, 600.0])
@pytest.mark.parametrize("size", [1, 4, 32])
def test_the_first_batch_tells_nothing_and_the_next_ones_all(first: float, size: int) -> None:
    told, _ = worked([first, *[2.0] * 30], size)
    assert told[0][1] is None
    off = errors(told)
    assert min(off) == 1 and max(off.values()) < 0.05


@pytest.mark.parametrize(("before", "then"), [(2.0, 1.0), (1.0, 2.0), (5.0, 0.6), (0.6, 6.0)])
def test_it_follows_another_rate_within_a_few_batches(before: float, then: float) -> None:
    told, _ = worked([9.0, *[before] * 40, *[then] * 40])
    off = errors(told)
    assert all(off[n] < 0.01 for n in range(40 + 4, 80))


def test_images_of_different_cost_are_counted_by_their_mean() -> None:
    """Log-normal costs, mean 1 s and as much deviation; the median alone would tell 0.71 of it."""
    rng = np.random.default_rng(0)
    mean_errors = []
    for _ in range(20):
        costs = rng.lognormal(-0.5 * np.log(2), np.sqrt(np.log(2)), (120, 4)).sum(1)
        told, _ = worked([30.0, *costs.tolist()])
        signed = [(left - true) / true for n, left, true in told if left is not None and 20 <= n < 90]
        mean_errors.append(statistics.mean(signed))
        assert statistics.median(map(abs, signed)) < 0.2
    assert abs(statistics.mean(mean_errors)) < 0.07


def test_a_pause_is_no_rule() -> None:
    told, _ = worked([9.0, *[2.0] * 10, 300.0, *[2.0] * 40])
    assert max(errors([one for one in told if one[0] > 11]).values()) < 0.05


def test_what_an_earlier_call_did_took_this_one_no_time() -> None:
    told, eta = worked([9.0, *[2.0] * 20], known=4000)
    assert max(errors(told).values()) < 0.05
    assert eta.counted == 84 and eta.seconds == pytest.approx(49)


def test_quick_steps_are_counted_together_with_the_rare_slow_ones() -> None:
    """Ten milliseconds a step, and half a second every hundredth, as a training does that keeps its state."""
    steps = [0.01 + 0.5 * (k % 100 == 99) for k in range(6000)]
    told, _ = worked([3.0, *steps], size=1)
    assert max(off for n, off in errors(told).items() if 600 < n < 4500) < 0.2


def test_it_counts_down_within_a_batch_but_not_below_the_batches_after_it() -> None:
    now = Now()
    eta = Eta(4, now)
    for done, seconds in ((0, 0.0), (4, 9.0), (8, 2.0), (12, 2.0)):
        now.seconds += seconds
        eta.update(done, 40)
    left = []
    for seconds in (0.0, 0.5, 1.0, 50.0):
        now.seconds += seconds
        left.append(eta.estimate_left())
    assert left == [14.0, 13.5, 12.5, 12.0]


def test_a_number_that_falls_begins_other_work() -> None:
    now = Now()
    eta = Eta(1, now)
    for done, seconds in ((0, 0.0), (1, 1.0), (2, 1.0), (3, 1.0), (0, 60.0), (1, 7.0)):
        now.seconds += seconds
        eta.update(done, 3)
    assert eta.estimate_left() is None and eta.seconds == 7.0
    now.seconds += 5.0
    eta.update(2, 3)
    assert eta.pace == 5.0 and eta.estimate_left() == 5.0
    eta.restart()
    assert (eta.estimate_left(), eta.seconds, eta.counted) == (None, 0.0, 0)


@pytest.mark.parametrize("calls", [[(0, 0)], [(3, 3)], [(0, 5), (5, 5), (5, 5)], [(0, 2), (7, 2)], [(0, 3), (0, 3)]])
def test_odd_calls_do_no_harm(calls: list[tuple[int, int]]) -> None:
    eta = Eta(4, now=itertools.count(1.0).__next__)
    for done, total in calls:
        eta.update(done, total)
        left = eta.estimate_left()
        assert left is None or left >= 0
        assert (left == 0) == (done >= total)


def stopped() -> Iterator[float]:
    yield from itertools.repeat(5.0)


def test_a_clock_that_stands_still_does_no_harm() -> None:
    clock: Callable[[], float] = stopped().__next__
    eta = Eta(1, clock)
    for done in range(20):
        eta.update(done, 30)
    assert eta.estimate_left() is None  # no batch took any time


def test_durations_have_two_units_at_most() -> None:
    said = [format_duration(s) for s in (0, 0.4, 59.4, 59.6, 60, 61, 3599.4, 3599.6, 3660, 86_399.6, 90_000, 9e6)]
    assert said == [
        "0 s",
        "0 s",
        "59 s",
        "1 min",
        "1 min",
        "1 min 1 s",
        "59 min 59 s",
        "1 h",
        "1 h 1 min",
        "1 d",
        "1 d 1 h",
        "104 d 4 h",
    ]
    assert format_duration(59.96, 1) == "1 min" and format_duration(9.94, 1) == "9.9 s"
