"""A policy makes an answer of a ranking: who is named, who of two stays, and what is too weak to be told."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from annofree.detections.nms import Overlaps
from annofree.detections.policy import OutputPolicy, verify_detections
from annofree.detections.verification import SIGNALS, Calibration, Naming
from annofree.errors import InputError
from annofree.structures import Detections


def ranking(*scores: float) -> Detections:
    """Squares side by side, one a score, all called cat."""
    masks = np.zeros((len(scores), 4, 4 * len(scores)), bool)
    for k in range(len(scores)):
        masks[k, :, 4 * k : 4 * k + 4] = True
    return Detections.from_masks(masks, [0] * len(scores), scores, ["cat", "dog"])


def test_the_default_hands_over_the_ranking() -> None:
    found = ranking(0.9, 0.5, 0.0)
    assert OutputPolicy().decide(found).scores.tolist() == found.scores.tolist()


@pytest.mark.parametrize(("floor", "most", "left"), [(0.5, 100, 2), (0.51, 100, 1), (0.0, 1, 1), (1.0, 100, 0)])
def test_floor_and_most(floor: float, most: int, left: int) -> None:
    assert len(OutputPolicy(floor=floor, most=most).decide(ranking(0.75, 0.5, 0.25))) == left


def test_overlaps_are_settled_before_the_floor() -> None:
    masks = np.ones((2, 3, 3), bool)
    twins = Detections.from_masks(masks, [0, 1], [0.6, 0.55], ["cat", "dog"])
    kept = OutputPolicy(overlaps=Overlaps(across=0.5), floor=0.5).decide(twins)
    assert kept.labels.tolist() == ["cat"]


def test_names_compete_and_distractors_are_not_told() -> None:
    words = torch.eye(3)  # cat, dog, and a distractor
    features = torch.eye(3)[[1, 2, 0]]
    policy = OutputPolicy(verify=True)
    every = verify_detections(ranking(0.9, 0.8, 0.7), features, words, torch.ones(3), policy, ("cat", "dog", "wall"))
    assert every.labels.tolist() == ["dog", "wall", "cat"]
    found = policy.decide(every, told=2)
    assert found.labels.tolist() == ["dog", "cat"] and found.names == ("cat", "dog")
    np.testing.assert_allclose(found.scores, [0.9, 0.7], rtol=1e-6)  # share times score


def test_a_part_of_what_a_distractor_wins_goes_with_it() -> None:
    masks = np.zeros((3, 8, 8), bool)
    masks[0, :6, :6], masks[1, :3, :3], masks[2, 6:, 6:] = True, True, True
    found = Detections.from_masks(masks, [1, 0, 0], [0.9, 0.8, 0.7], ["cat", "lion"])
    policy = OutputPolicy(overlaps=Overlaps(within=0.5, across=0.5, inside=0.7, inside_across=0.7))
    assert policy.decide(found, told=1).scores.tolist() == pytest.approx([0.7])  # the lion's head is no cat
    assert len(OutputPolicy(floor=0.75).decide(found, told=1)) == 1


def test_a_calibrated_score_is_the_probability() -> None:
    policy = OutputPolicy(verify=True, naming=Naming(100.0), calibration=Calibration({"quality": 2.0}, -1.0))
    found = verify_detections(ranking(0.9, 0.5), torch.eye(2), torch.eye(2), torch.ones(2), policy, ("cat", "dog"))
    np.testing.assert_allclose(found.scores, 1 / (1 + np.exp(1 - 2 * np.array([0.9, 0.5]))), rtol=1e-5)
    assert "quality" in SIGNALS


def test_nothing_found_stays_nothing() -> None:
    none = Detections.none((4, 4), ["x"])
    found = verify_detections(none, torch.zeros(0, 2), torch.eye(2), torch.ones(2), OutputPolicy(verify=True), ("cat", "dog"))
    assert len(found) == 0 and found.names == ("cat", "dog")


@pytest.mark.parametrize("wrong", [{"floor": 1.5}, {"floor": -0.1}, {"most": 0}])
def test_bad_policies_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="floor from 0 to 1"):
        OutputPolicy(**wrong)  # type: ignore[arg-type]
