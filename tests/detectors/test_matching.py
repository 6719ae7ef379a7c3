"""Matching, sampling and losses beside written-out loops."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, distributed
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder

from annofree.detectors.matching import (
    MatchedProposals,
    average_count,
    compute_box_loss,
    compute_class_loss,
    drop_weights,
    match_proposals,
    sample_proposals,
    weigh_proposals,
)
from annofree.detectors.types import DetectionTargets
from annofree.testing.tolerances import assert_close

NAMES = 3
Empty = Callable[[tuple[int, int]], DetectionTargets]


def iou_of(a: Sequence[float], b: Sequence[float]) -> float:
    inner = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner)


def random_boxes(count: int, seed: int) -> Tensor:
    corner, size = torch.rand(2, count, 2, generator=torch.Generator().manual_seed(seed))
    return torch.cat([corner * 40, corner * 40 + 8 + size * 30], 1)


@pytest.fixture
def target() -> DetectionTargets:
    return DetectionTargets(random_boxes(4, 1), torch.tensor([2, 0, 1, 0]), torch.zeros(4, 80, 80, dtype=torch.bool))


def matched_in_a_loop(boxes: Tensor, target: DetectionTargets, iou: float) -> tuple[list[int], list[int]]:
    labels, matched = [], []
    for box in boxes.tolist():
        overlaps = [iou_of(box, other) for other in target.boxes.tolist()]
        at = max(range(len(overlaps)), key=lambda i: overlaps[i])
        matched.append(at)
        labels.append(int(target.labels[at]) if overlaps[at] >= iou else NAMES)
    return labels, matched


@pytest.mark.parametrize("iou", [0.5, 0.6, 0.7])
def test_proposals_are_matched_as_in_a_loop(target: DetectionTargets, iou: float) -> None:
    boxes = torch.cat([random_boxes(60, 2), target.boxes, target.boxes + 2.5])
    taught = match_proposals(boxes, target, iou, NAMES)
    labels, matched = matched_in_a_loop(boxes, target, iou)
    assert taught.labels.tolist() == labels and taught.matched.tolist() == matched
    assert 4 <= sum(label < NAMES for label in labels) < len(boxes)
    assert torch.equal(taught.goals, target.boxes[matched]) and torch.equal(taught.boxes, boxes)


def test_just_the_overlap_is_enough() -> None:
    target = DetectionTargets(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([1]), torch.zeros(1, 9, 9, dtype=torch.bool))
    boxes = torch.tensor([[0.0, 0, 10, 5], [0, 0, 10, 4.9]])
    assert match_proposals(boxes, target, 0.5, NAMES).labels.tolist() == [1, NAMES]


def test_nothing_to_find_makes_all_background(empty: Empty) -> None:
    boxes = random_boxes(5, 3)
    taught = match_proposals(boxes, empty((9, 9)), 0.5, NAMES)
    assert taught.labels.tolist() == [NAMES] * 5 and torch.equal(taught.goals, boxes)


@pytest.mark.parametrize(
    ("on", "off", "expected"), [(100, 100, (8, 24)), (3, 100, (3, 29)), (100, 10, (8, 10)), (0, 5, (0, 5))]
)
def test_samples_have_their_share_of_objects(on: int, off: int, expected: tuple[int, int]) -> None:
    labels = torch.tensor([1] * on + [NAMES] * off)
    number = torch.arange(on + off)
    drawn = sample_proposals(
        MatchedProposals(random_boxes(on + off, 4), labels, number, random_boxes(on + off, 5)), NAMES, 32, 0.25
    )
    assert (int((drawn.labels < NAMES).sum()), int((drawn.labels == NAMES).sum())) == expected
    assert len(set(drawn.matched.tolist())) == len(drawn.matched) and torch.equal(
        drawn.boxes, random_boxes(on + off, 4)[drawn.matched]
    )


def test_losses_are_those_of_a_loop(target: DetectionTargets) -> None:
    taught = [match_proposals(torch.cat([random_boxes(9, 6), target.boxes + 1]), target, 0.5, NAMES)] * 2
    labels = torch.cat([one.labels for one in taught])
    logits, deltas = torch.randn(len(labels), NAMES + 1), torch.randn(len(labels), 4)
    coder, classes, boxes = BoxCoder((10.0, 10.0, 5.0, 5.0)), 0.0, 0.0
    for i, label in enumerate(labels.tolist()):
        classes -= float(logits[i].log_softmax(0)[label])
        if label < NAMES:
            one = taught[i // len(taught[0].boxes)]
            x = i % len(taught[0].boxes)
            (x0, y0, x1, y1), (a0, b0, a1, b1) = one.boxes[x].tolist(), one.goals[x].tolist()
            w, h = x1 - x0, y1 - y0
            goal = [10 * ((a0 + a1) - (x0 + x1)) / 2 / w, 10 * ((b0 + b1) - (y0 + y1)) / 2 / h]
            goal += [5 * math.log((a1 - a0) / w), 5 * math.log((b1 - b0) / h)]
            boxes += sum(abs(d - g) for d, g in zip(deltas[i].tolist(), goal, strict=True))
    assert_close(compute_class_loss(logits, labels), classes / len(labels))
    assert_close(compute_box_loss(deltas, taught, NAMES, coder.encode_single), boxes / len(labels))
    assert boxes > 0


@pytest.mark.parametrize("iou", [0.01, 0.3])
def test_drop_loss_is_that_of_a_loop(target: DetectionTargets, iou: float) -> None:
    boxes = torch.cat([random_boxes(20, 7), random_boxes(20, 8) + 60])
    logits, labels = torch.randn(40, NAMES + 1), torch.randint(0, NAMES + 1, (40,))
    total = 0.0
    for i, box in enumerate(boxes.tolist()):
        if max(iou_of(box, other) for other in target.boxes.tolist()) > iou:
            total += float(F.cross_entropy(logits[i : i + 1], labels[i : i + 1]))
    weights = drop_weights(boxes, target, iou)
    assert 0 < int(weights.sum()) < 40
    assert_close(compute_class_loss(logits, labels, weights), total / 40)


def test_an_object_weighs_what_its_weight_says(target: DetectionTargets) -> None:
    weighed = target._replace(weights=torch.tensor([0.5, 1.0, 2.0, 0.25]))
    taught = match_proposals(torch.cat([random_boxes(30, 2), target.boxes]), target, 0.5, NAMES)
    weights = weigh_proposals([taught, taught], [weighed, target], NAMES)
    assert weights is not None and weigh_proposals([taught], [target], NAMES) is None
    own = [
        float(weighed.weights[at]) if label < NAMES else 1.0  # type: ignore[index]
        for label, at in zip(taught.labels.tolist(), taught.matched.tolist(), strict=True)
    ]
    assert weights.tolist() == [*own, *[1.0] * len(own)] and len(set(own)) > 2
    deltas = torch.randn(len(taught.boxes), 4)
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    each = [
        compute_box_loss(deltas[i : i + 1], [taught.select(torch.tensor([i]))], NAMES, coder.encode_single) for i in range(34)
    ]
    total = sum(weight * float(one) for weight, one in zip(own, each, strict=True))
    assert_close(compute_box_loss(deltas, [taught], NAMES, coder.encode_single, weights[:34]), total / 34)


def test_an_image_with_nothing_weighs_nothing_else(target: DetectionTargets, empty: Empty) -> None:
    nothing = empty((80, 80))._replace(weights=torch.zeros(0))
    taught = [match_proposals(random_boxes(3, 2), one, 0.5, NAMES) for one in (nothing, target)]
    weights = weigh_proposals(taught, [nothing, target._replace(weights=torch.full((4,), 3.0))], NAMES)
    assert weights is not None and weights[:3].tolist() == [1.0, 1.0, 1.0]


def test_drop_loss_drops_nothing_where_no_object_is_known(empty: Empty) -> None:
    assert drop_weights(random_boxes(3, 9), empty((9, 9)), 0.01).tolist() == [1, 1, 1]


def test_counts_are_means_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert average_count(torch.zeros(0)).item() == 1 and average_count(torch.zeros(7)).item() == 7
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce", lambda count: count.add_(3))  # what the other one has
    assert average_count(torch.zeros(7)).item() == 5
