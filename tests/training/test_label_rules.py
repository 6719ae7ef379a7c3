"""The rules that turn found things into labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annofree.errors import InputError
from annofree.structures import Detections
from annofree.training.pseudo_labels.rules import (
    ByClass,
    LabelRules,
    apply_rules,
    cap_per_class,
    compute_repeat_factors,
    compute_share_floors,
    drop_fragments,
    merge_labels,
)

NAMES = ("cat", "dog")


def rows(*spans: tuple[int, int], scores: Sequence[float] = (), classes: Sequence[int] = ()) -> Detections:
    """Things in an image of one line of 200 px, each from a column to another."""
    masks = np.zeros((len(spans), 1, 200), bool)
    for mask, (start, end) in zip(masks, spans, strict=True):
        mask[0, start:end] = True
    return Detections.from_masks(masks, classes or [0] * len(spans), scores or [0.5] * len(spans), NAMES)


def spans(found: Detections) -> list[tuple[int, int]]:
    return [(int(x0), int(x1)) for x0, _, x1, _ in found.boxes.tolist()]


@pytest.mark.parametrize(("shared", "stays"), [(49, True), (51, False), (50, False)])
def test_an_old_mask_stays_under_an_iou_of_one_half(shared: int, stays: bool) -> None:
    old, new = rows((0, 100), classes=[1]), rows((0, shared), scores=[0.9])
    assert spans(merge_labels(new, old)) == [(0, shared), (0, 100)][: 1 + stays]
    assert merge_labels(new, old, most=0.6).labels.tolist() == ["cat", "dog"]


def test_old_masks_are_held_against_every_new_one() -> None:
    old = rows((0, 20), (60, 90), (100, 200), scores=[0.2, 0.8, 0.3])
    both = merge_labels(rows((5, 20), (61, 80), scores=[0.7, 0.5]), old)
    assert spans(both) == [(5, 20), (61, 80), (100, 200)] and both.scores.tolist() == pytest.approx([0.7, 0.5, 0.3])
    assert spans(merge_labels(Detections.none(old.size, NAMES), old)) == spans(old)
    assert spans(merge_labels(old, Detections.none(old.size, NAMES))) == spans(old)


def test_a_fragment_goes_whatever_it_scores() -> None:
    found = rows((0, 100), (0, 10), (95, 115), (0, 10), scores=[0.5, 0.9, 0.4, 0.8], classes=[0, 0, 0, 1])
    assert spans(drop_fragments(found, 0.9)) == [(0, 10), (0, 100), (95, 115)]
    assert drop_fragments(found, 0.9).labels.tolist() == ["dog", "cat", "cat"]
    assert spans(drop_fragments(found, 0.2)) == [(0, 10), (0, 100)]  # 5 of 20 px are inside
    assert spans(drop_fragments(rows((0, 9), (0, 9), scores=[0.3, 0.2]), 0.9)) == [(0, 9)]


def test_fragments_are_those_of_the_slow_twin() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((12, 6, 9)) < rng.uniform(0.1, 0.9, (12, 1, 1))
    found = Detections.from_masks(masks, rng.integers(2, size=12), rng.random(12).astype(np.float32), NAMES)
    decoded, kept = found.masks, []
    for i, mask in enumerate(decoded):
        inside = False
        for j, other in enumerate(decoded):
            if i != j and found.class_ids[i] == found.class_ids[j] and (other.sum(), -j) > (mask.sum(), -i):
                inside |= (mask & other).sum() / mask.sum() > 0.7
        if not inside:
            kept.append(i)
    assert drop_fragments(found, 0.7).scores.tolist() == found.scores[kept].tolist() and 0 < len(kept) < 12


def test_rules_come_in_order_and_count_what_they_drop() -> None:
    found = rows(
        *((0, 100), (0, 80), (0, 70), (120, 121), (130, 140), (150, 160), (131, 139)),
        scores=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.35],
        classes=[0, 0, 1, 0, 0, 1, 0],
    )
    floors = np.array([0.3, 0.45], np.float32)
    rules = LabelRules(min_area=2, within=0.85, most=2)
    left, dropped = apply_rules(found, floors, rules)
    assert dropped == {"score": 1, "area": 1, "duplicate": 0, "fragment": 2, "most": 1}
    assert spans(left) == [(0, 100), (0, 70)] and left.labels.tolist() == ["cat", "dog"]
    across, _ = apply_rules(found, floors, LabelRules(min_area=2, across=0.6))
    assert spans(across) == [(0, 100), (130, 140)]
    alike, _ = apply_rules(found, floors, LabelRules(agnostic=True))
    assert set(alike.labels) == {"object"} and spans(alike) == [(0, 100), (120, 121), (130, 140)]


def test_floors_of_the_best_share() -> None:
    class_ids = np.array([0, 0, 0, 0, 1, 1, 1])
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.7], np.float32)
    floors = compute_share_floors(class_ids, scores, np.array([0.5, 0.5, 0.5], np.float32))
    assert floors.tolist() == pytest.approx([0.3, 0.5, 0.0])
    assert compute_share_floors(class_ids, scores, np.array([1.0, 0.0], np.float32))[0] == scores[0]
    assert np.isinf(compute_share_floors(class_ids, scores, np.array([1.0, 0.0], np.float32))[1])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.1, 0.5, 0.9])), max_size=12), st.integers(1, 4))
def test_a_cap_is_that_of_the_slow_twin(things: list[tuple[int, float]], most: int) -> None:
    class_ids, scores = np.array([k for k, _ in things], np.int64), np.array([s for _, s in things], np.float32)
    best = {
        k: sorted((i for i, t in enumerate(things) if t[0] == k), key=lambda i: (-things[i][1], i))[:most] for k in range(3)
    }
    assert cap_per_class(class_ids, scores, most).tolist() == [i in best[k] for i, (k, _) in enumerate(things)]
    assert cap_per_class(class_ids, scores, None).all()


def test_rare_classes_repeat() -> None:
    assert compute_repeat_factors(np.array([1, 100, 0]), 100, 0.0).tolist() == [1, 1, 1]
    assert compute_repeat_factors(np.array([4, 25]), 100, 0.25).tolist() == [2.5, 1.0]


def test_class_ids_into_other_names() -> None:
    both = rows((0, 9), (20, 29), classes=[1, 0]).with_names(("dog", "cow", "cat"))
    assert both.class_ids.tolist() == [0, 2] and both.labels.tolist() == ["dog", "cat"]


def test_numbers_by_class() -> None:
    values = ByClass.of(["0.3", "dog=0.5", "a=b=0.1", "dog=0.6"], 0.0)
    assert values == ByClass(0.3, {"dog": 0.6, "a=b": 0.1}) and ByClass.of([], 0.25).list_values(NAMES).tolist() == [0.25, 0.25]
    assert ByClass.of(["dog=0.5"], 0.0).list_values(NAMES).tolist() == [0, 0.5]
    for wrong in ("dog", "dog=", "1.5", "nan"):
        with pytest.raises(InputError, match="expected a number"):
            ByClass.of([wrong], 0.0)
    with pytest.raises(InputError, match="did you mean 'dog'"):
        ByClass.of(["dogs=0.5"], 0.0).list_values(NAMES)


def test_rules_out_of_range() -> None:
    with pytest.raises(InputError, match=r"got within 1\.5, most 0"):
        LabelRules(within=1.5, most=0)
    assert LabelRules(min_score=ByClass(0.1, {"dog": 0.2})).to_settings()["min_score"] == {"usual": 0.1, "named": {"dog": 0.2}}
