"""What a person gets, counted: right, missed, said twice, and how far scores are from what they claim."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from annofree.evaluation.metrics.answer import AnswerScores, compute_calibration_error, evaluate_answer
from annofree.evaluation.reports.instance import as_sentence, to_json_dict
from annofree.formats.coco import CocoFile


def box(x: float, y: float, w: float, h: float, category: int = 1, image: int = 1, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": [x, y, w, h], "area": w * h, **more}


@pytest.fixture
def truth() -> CocoFile:
    """Two dogs side by side, a cat, and a crowd of dogs; nothing on a second image."""
    file = CocoFile.with_categories({1: "dog", 2: "cat"})
    for name in ("a.jpg", "b.jpg"):
        file.add_image(name, (100, 100))
    file.add_annotations([box(0, 0, 20, 20), box(20, 0, 20, 20), box(50, 50, 20, 20, 2), box(0, 60, 30, 30, iscrowd=1)])
    return file


def scored(truth: CocoFile, *rows: dict[str, Any], **more: Any) -> AnswerScores:
    return evaluate_answer(truth, list(rows), iou_type="bbox", **more)


def test_each_true_instance_is_given_once(truth: CocoFile) -> None:
    found = scored(truth, box(0, 0, 20, 20, score=0.9), box(1, 0, 20, 20, score=0.8), box(50, 50, 20, 20, 2, score=0.7))
    assert (found.n_truth, found.n_answers, found.n_right, found.n_duplicates) == (3, 3, 2, 1)
    assert found.precision == found.recall == found.f1 == 2 / 3
    assert found.duplicates == 1 / 3 and found.count_error == 0.0  # two dogs were told, and a cat


def test_another_name_is_wrong_and_over_a_right_answer_it_is_said_twice(truth: CocoFile) -> None:
    right, other = box(0, 0, 20, 20, score=0.9), box(0, 0, 20, 20, 2, score=0.5)
    assert scored(truth, right, other).n_duplicates == 1
    assert scored(truth, other).n_duplicates == 0, "there is no right answer that it repeats"


@pytest.mark.parametrize(("part", "twice"), [((0, 0, 10, 8), 1), ((0, 0, 30, 8), 0)])
def test_a_part_of_a_right_answer_is_said_twice_when_it_lies_in_it_by_four_fifths(
    truth: CocoFile, part: tuple[int, int, int, int], twice: int
) -> None:
    assert scored(truth, box(0, 0, 20, 20, score=0.9), box(*part, score=0.5)).n_duplicates == twice


def test_what_lies_on_a_crowd_does_not_count(truth: CocoFile) -> None:
    assert scored(truth, box(0, 60, 10, 10, score=0.9)).n_answers == 0
    assert scored(truth, box(0, 60, 10, 10, 2, score=0.9)).n_answers == 1, "a cat in a crowd of dogs does"


def test_counts_are_compared_by_image_and_name(truth: CocoFile) -> None:
    rows = [box(k, 0, 20, 20, score=0.9) for k in range(5)]
    # five dogs for two, no cat for one, one cat on the empty image
    assert scored(truth, *rows, box(0, 0, 9, 9, 2, image=2, score=0.9)).count_error == (3 + 1 + 1) / 3
    assert scored(truth, image_ids=[2]).count_error is None


def test_a_floor(truth: CocoFile) -> None:
    rows = [box(0, 0, 20, 20, score=0.9), box(60, 0, 9, 9, score=0.4)]
    assert scored(truth, *rows).precision == 0.5 and scored(truth, *rows, min_score=0.5).precision == 1.0


def test_nothing_said_and_nothing_true(truth: CocoFile) -> None:
    none = scored(truth, image_ids=[2])
    assert (none.precision, none.recall, none.f1, none.duplicates, none.calibration_error) == (None,) * 5
    assert scored(truth).recall == 0.0 and scored(truth).precision is None
    assert as_sentence(none).startswith("0 answers on 0 instances, 0 right: precision -, recall -")


def test_calibration_is_weighed_by_bin() -> None:
    scores, right = np.array([0.95, 0.95, 0.95, 0.95, 0.15]), np.array([True, True, True, False, False])
    assert compute_calibration_error(scores, right) == pytest.approx((4 * abs(0.95 - 0.75) + 0.15) / 5)
    assert compute_calibration_error(np.array([1.0]), np.array([True])) == 0.0, "a score of one falls in the last bin"
    assert compute_calibration_error(np.zeros(0), np.zeros(0, bool)) is None
    assert compute_calibration_error(np.array([0.5, 1.5]), np.array([True, True])) is None, "no probabilities"


def test_programs_get_the_rates_too(truth: CocoFile) -> None:
    told = to_json_dict({"answer": scored(truth, box(0, 0, 20, 20, score=1.0))})["answer"]
    assert told["precision"] == 1.0 and told["recall"] == 1 / 3 and told["n_right"] == 1
