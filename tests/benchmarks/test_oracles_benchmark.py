"""The benchmark of the oracle split, small."""

from __future__ import annotations

from types import ModuleType


def test_it_measures_plain_scoring_and_the_split(benchmark: ModuleType) -> None:
    told = benchmark.measured(4, 10, obvious=True)
    assert (told["images"], told["predictions"], told["truth"]) == (4, 40, 28)
    assert told["AP"]["all"] >= max(told["AP"].values()) > 0
    assert {"plain scoring", "oracle split", "scoring four fixed files, AP alone"} <= told.keys()
