"""What a row costs: what others asked for first is charged to it, and networks are counted once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from torch import nn

from annofree.experiments.costs import Ledger, count_parameters
from annofree.experiments.shared_models import memoize_per_image
from annofree.structures import Image


class Slow:
    """Spends a while on each question, by asking a slow one below it, if any."""

    def __init__(self, below: Any = None) -> None:
        self.below = below

    def look(self, images: Sequence[Image]) -> float:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        if self.below is not None:
            self.below.look(images)
        return end


def test_who_asks_second_is_charged_as_if_first() -> None:
    ledger = Ledger()
    inner = memoize_per_image(Slow(), ledger)
    outer, other = memoize_per_image(Slow(inner), ledger), memoize_per_image(Slow(inner), ledger)
    images = [Image(np.zeros((2, 2, 3), np.uint8))]
    costs = [ledger.measure(partial(model.look, images))[1] for model in (outer, outer, other, inner)]
    spent = time.process_time()
    assert costs == [pytest.approx(c, abs=0.03) for c in (0.1, 0.1, 0.1, 0.05)]
    assert ledger.now - spent == pytest.approx(0.1 + 0.05 + 0.05, abs=0.05)  # what was not done again


def test_each_network_is_counted_once() -> None:
    network = nn.Linear(1000, 999)

    class Part:
        def __init__(self) -> None:
            self.network, self.again = network, network.weight

        def look(self, images: Sequence[Image]) -> None: ...

    class Method:
        def __init__(self) -> None:
            self.parts = {"a": [Part()], "b": (Part(), partial(network.forward))}
            self.look = Part().look
            self.itself = self

    assert count_parameters(Method()) == count_parameters(memoize_per_image(Part())) == 1.0
    assert count_parameters(object()) == 0
