"""Policies for overlaps against a plain loop over pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from annofree.detections.nms import Overlaps, drop_claimed, suppress
from annofree.errors import InputError
from annofree.structures import Detections

Masks = npt.NDArray[np.bool_]


def found_of(seed: int, count: int = 24) -> Detections:
    rng, masks = np.random.default_rng(seed), np.zeros((count, 20, 30), bool)
    for mask in masks:
        y, x = rng.integers(0, 14), rng.integers(0, 22)
        mask[y : y + rng.integers(2, 14), x : x + rng.integers(2, 16)] = True
    ids = rng.integers(0, 3, count)
    for k in range(0, count - 2, 6):  # two things, and both as one
        masks[k] = masks[k + 1] | masks[k + 2]
        ids[k : k + 3] = ids[k]
    return Detections.from_masks(masks, ids, rng.random(count, np.float32), ["a", "b", "c"])


def loop(found: Detections, policy: Overlaps) -> list[int]:
    """What is left, pair by pair and pixel by pixel."""
    masks, ids = found.masks, found.class_ids

    def twins(i: int, j: int) -> bool:
        limit = policy.within if ids[i] == ids[j] else policy.across
        return bool((masks[i] & masks[j]).sum() > limit * (masks[i] | masks[j]).sum())

    def nested(i: int, j: int) -> bool:
        limit = policy.inside if ids[i] == ids[j] else policy.inside_across
        return bool((masks[i] & masks[j]).sum() > limit * min(masks[i].sum(), masks[j].sum()))

    def of_pair(j: int, i: int) -> bool:
        inside = (masks[j] & masks[i]).sum() > 0.8 * masks[j].sum() and 1 / 3 < masks[j].sum() / masks[i].sum() < 0.75
        return bool(inside and ids[i] == ids[j] and found.scores[j] >= 0.5 * found.scores[i])

    def two_in_one(i: int) -> bool:
        parts = [j for j in range(len(found)) if of_pair(j, i)]
        return any(
            (masks[a] & masks[b]).sum() < 0.1 * (masks[a] | masks[b]).sum()
            and masks[a].sum() + masks[b].sum() > policy.pair * masks[i].sum()
            for a in parts
            for b in parts
        )

    first: list[int] = []
    for i in range(len(found)):
        if policy.pair < 1 and two_in_one(i):
            continue
        if not any(twins(i, j) for j in first):
            first.append(i)
    if policy.prefer != "strong":
        first.sort(key=lambda i: (-1 if policy.prefer == "whole" else 1) * int(masks[i].sum()))
    left: list[int] = []
    for i in first:
        if not any(nested(i, j) for j in left):
            left.append(i)
    return sorted(left)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "text",
    [
        "",
        "within=0.4",
        "across=0.3",
        "within=0.5, across=0.7",
        "inside=0.8",
        "inside=0.8, prefer=whole",
        "inside-across=0.6, prefer=part",
        "pair=0.5",
        "pair=0.3, within=0.6, inside=0.8",
        "within=0.5, across=0.8, inside=0.7, inside-across=0.9, prefer=whole",
        "within=0, across=0, inside=0, inside-across=0",
    ],
)
def test_what_a_loop_leaves(seed: int, text: str) -> None:
    found, policy = found_of(seed), Overlaps.of(text)
    settled = policy.apply(found)
    assert np.array_equal(settled.masks, found.masks[loop(found, policy)])
    assert (np.diff(settled.scores) <= 0).all()
    if text in ("within=0.4", "across=0.3", "within=0.5, across=0.7"):
        assert 0 < len(settled) < len(found) or "," in text
        assert settled.rles == suppress(found, within=policy.within, across=policy.across).rles


def nest() -> Detections:
    """A whole of 0.6, a part in it of 0.9 of the same class, and one of 0.5 of another."""
    masks = np.zeros((3, 8, 8), bool)
    masks[0, :6, :6], masks[1, :2, :2], masks[2, 3:5, 3:5] = True, True, True
    return Detections.from_masks(masks, [0, 0, 1], [0.6, 0.9, 0.5], ["person", "hat"])


@pytest.mark.parametrize(
    ("text", "areas"),
    [
        ("inside=0.9", [4, 4]),
        ("inside=0.9, prefer=whole", [36, 4]),
        ("inside=0.9, prefer=part", [4, 4]),
        ("inside-across=0.9", [4, 36]),
        ("inside-across=0.9, prefer=part", [4, 4]),
        ("inside=0.9, inside-across=0.9, prefer=whole", [36]),
    ],
)
def test_parts_and_wholes(text: str, areas: list[int]) -> None:
    assert Overlaps.of(text).apply(nest()).areas.tolist() == areas


def test_few_or_no_instances_are_left_alone() -> None:
    policy = Overlaps(0, 0, 0, 0)
    assert len(policy.apply(nest()[:1])) == 1 and len(policy.apply(nest()[:0])) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("withn=0.5", r"unknown part of a policy for overlaps 'withn'; did you mean 'within'\?"),
        ("within", r"expected a value for within, such as within=0.5, got 'within'"),
        ("inside-across=much", r"expected inside-across as a number from 0 to 1, got 'much'"),
        ("inside_across=1.5", r"expected inside-across from 0 to 1, got 1.5"),
        ("within=nan", r"expected within from 0 to 1, got nan"),
        ("prefer=wholes", r"unknown preference 'wholes'; did you mean 'whole'\?"),
        ("within=0.5,", r"unknown part of a policy for overlaps ''"),
    ],
)
def test_what_is_no_policy(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Overlaps.of(text)


def test_a_stronger_negative_claims_what_it_covers() -> None:
    found = nest()
    wall = Detections.from_masks(found.masks[[1]], [0], [0.7], ["wall"])  # where the whole is
    assert drop_claimed(found, wall, 0.5).areas.tolist() == [4, 4]
    assert drop_claimed(found, wall, 1.0).areas.tolist() == [4, 36, 4]
    weak = Detections.from_masks(found.masks[[1]], [0], [0.6], ["wall"])
    assert len(drop_claimed(found, weak, 0.5)) == 3
    assert drop_claimed(found, wall[:0], 0.5) is found


def test_two_things_drawn_as_one_are_two() -> None:
    masks = np.zeros((3, 10, 20), bool)
    masks[0, :, :], masks[1, 1:9, :9], masks[2, 1:9, 10:] = True, True, True
    found = Detections.from_masks(masks, [0, 0, 0], [0.9, 0.6, 0.5], ["orange"])
    assert len(Overlaps(pair=0.6).apply(found)) == 2  # apart, half as strong, and most of it
    assert len(Overlaps(pair=0.8).apply(found)) == 3
    weak = Detections.from_masks(masks, [0, 0, 0], [0.9, 0.6, 0.4], ["orange"])
    other = Detections.from_masks(masks, [0, 0, 1], [0.9, 0.6, 0.5], ["orange", "apple"])
    assert len(Overlaps(pair=0.6).apply(weak)) == len(Overlaps(pair=0.6).apply(other)) == 3


def test_random_scenes_hold_pairs() -> None:
    assert any(len(Overlaps(pair=0.5).apply(found_of(seed))) < 24 for seed in range(5))
