from __future__ import annotations

import time

import pytest
import torch

from annofree.testing.timing import Spread, measure_seconds


def test_a_spread_of_one_repeat_is_that_repeat() -> None:
    assert Spread.of([2.0]) == (2.0, 2.0, 2.0)


def test_seconds_count_the_work_and_the_wait_for_a_cuda_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [10.0]

    def spend(amount: float) -> None:
        clock[0] += amount

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: spend(0.5))
    assert measure_seconds(lambda: spend(2.0)) == 2.0
    assert measure_seconds(lambda: spend(2.0), "cuda:1") == 2.5
