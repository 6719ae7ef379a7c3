"""The fit of answers, on made-up candidates: right ones are told from wrong ones, and the table that is printed can be read."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from annofree.detections.nms import Overlaps
from annofree.detections.policy import OutputPolicy
from annofree.detections.verification import SIGNALS
from annofree.structures import Detections

POLICY = OutputPolicy(verify=True, overlaps=Overlaps(within=0.5, across=0.5))


def scored(benchmark: ModuleType, seed: int) -> Any:
    """Five things apart; of each a good candidate, a twin of it that is called otherwise, and one of nothing."""
    rng = np.random.default_rng(seed)
    masks, names, quality = np.zeros((15, 10, 150), bool), [], []
    for k in range(5):
        masks[3 * k, :, 20 * k : 20 * k + 10] = masks[3 * k + 1, 1:, 20 * k : 20 * k + 10] = True
        masks[3 * k + 2, :5, 105 + 8 * k : 110 + 8 * k] = True
        names += [0, 1, 0]
        quality += [0.9, 0.5, 0.2]
    ids = np.array(names)
    found = Detections.from_masks(masks, ids, np.linspace(1, 0, 15, dtype=np.float32), ("cat", "dog"))
    signals = np.zeros((15, len(SIGNALS)), np.float32)
    signals[:, SIGNALS.index("quality")] = np.array(quality) + rng.normal(0, 0.25, 15)
    overlaps = np.zeros((15, 5))
    for k in range(5):
        overlaps[3 * k, k], overlaps[3 * k + 1, k] = 1.0, 0.9
    return benchmark.Scored(found, signals, overlaps, np.zeros(5, np.int64))


def test_right_candidates_are_told_from_wrong_ones(benchmark: ModuleType) -> None:
    images = [scored(benchmark, seed) for seed in range(30)]
    assert images[0].right().tolist() == [True, False, False] * 5
    assert images[0].hits(np.array([0, 1, 3, 0])).tolist() == [True, False, True, False], "each true one is given once"
    kept = images[0].settled(np.linspace(0.9, 0.1, 15).astype(np.float32), POLICY)
    assert set(kept.tolist()) == set(range(15)) - {1, 4, 7, 10, 13}, "the twins go"
    calibration = benchmark.fitted(images, POLICY, "made up")
    assert calibration.weights["quality"] > 1 and calibration.fitted_on == "made up"
    told = benchmark.measured(images, POLICY)
    assert set(told["floors"]) == set(benchmark.FLOORS)
    assert told["floors"][0.5]["precision"] > 75 and told["floors"][0.5]["recall"] > 60
    assert told["calibration error"] < 0.1
