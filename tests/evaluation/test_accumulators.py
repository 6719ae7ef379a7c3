"""Answers gathered image by image: groups, ids, and figures that are those of the scorers."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from annofree.datasets.benchmarks.semantic import Labels, SemanticDataset, SemanticSample
from annofree.errors import InputError
from annofree.evaluation.accumulators import InstanceAccumulator, LabelMapAccumulator, compute_figures
from annofree.evaluation.metrics.semantic import SemanticScorer
from annofree.formats.coco import CocoFile
from annofree.structures import VOID, Detections, LabelMap
from annofree.testing.paper_world import NAMES, draw_paper_scenes

CATEGORIES = [10 * (k + 1) for k in range(len(NAMES))]


@pytest.fixture
def truth() -> CocoFile:
    """The instances of the paper world, with ids of categories of its own, in images wide and tall."""
    file = CocoFile.with_categories(dict(zip(CATEGORIES, NAMES, strict=True)))
    for scene in draw_paper_scenes():
        height, width = scene.image.size
        id_ = file.add_image(f"{scene.image.id}.png", scene.image.size, shape="wide" if width > height else "tall")
        rows = detections(scene.masks, scene.names).to_coco(id_, CATEGORIES)
        file.add_annotations([{k: v for k, v in row.items() if k != "score"} for row in rows])
    return file


def detections(masks: np.ndarray[tuple[int, int, int], np.dtype[np.bool_]], names: tuple[str, ...]) -> Detections:
    return Detections.from_masks(masks, [NAMES.index(name) for name in names], [1.0] * len(names), NAMES)


# Instances


def test_instances_are_kept_with_the_truths_ids(truth: CocoFile) -> None:
    answers = InstanceAccumulator(truth, "shape")
    for row, scene in zip(truth.images, draw_paper_scenes(), strict=True):
        answers.add(row, detections(scene.masks, scene.names))
    assert answers.found.images == truth.images and answers.found.categories == truth.categories
    said = [(row["image_id"], row["category_id"], row["area"]) for row in answers.found.annotations]
    assert said == [(row["image_id"], row["category_id"], row["area"]) for row in truth.annotations]
    figures = answers.compute_figures()
    assert figures == compute_figures(truth, answers.found, "shape")
    assert figures["wide AP"] == figures["tall AP"] == figures["all AP"] == figures["all separated"] == 100
    assert list(dict.fromkeys(name.split()[0] for name in figures)) == ["wide", "tall", "all"]


def test_nothing_found_is_nothing(truth: CocoFile) -> None:
    figures = InstanceAccumulator(truth, "shape").compute_figures()
    assert (figures["all AP"], figures["tall separated"], figures["wide separated"]) == (0, 0, None)


# Label maps

TRUE = {
    "one": [[0, 1, 1, VOID]],
    "two": [[2, 2, 0, 0]],
    "three": [[1, 1, 1, 1]],
}
SAID = {
    "one": [[0, 1, 0, 2]],
    "two": [[2, 1, 0, 0]],
    "three": [[1, 1, 0, VOID]],
}
GROUPS = {"one": "plain", "two": "touching", "three": "plain"}
LABELS = ("background", "dog", "cat")


def labels(rows: list[list[int]]) -> Labels:
    return np.array(rows, np.int32)


def dataset(names: tuple[str, ...] = LABELS, background: int | None = 0) -> SemanticDataset:
    samples = tuple(SemanticSample(name, None, partial(labels, rows)) for name, rows in TRUE.items())
    return SemanticDataset("three", names, background, samples, names)


IDS = (7, 5, 6)


def answered(names: tuple[str, ...] = LABELS, background: int | None = 0) -> LabelMapAccumulator:
    """In another order than the truth's, and asked in another order of names than the truth has."""
    answers, order = LabelMapAccumulator(IDS, dataset(), "split"), [LABELS.index(name.casefold()) for name in names]
    for id_, name in sorted(zip(IDS, SAID, strict=True)):
        said = np.where(labels(SAID[name]) < 0, VOID, np.argsort(order)[labels(SAID[name])]).astype(np.int32)
        answers.add({"id": id_, "split": GROUPS[name]}, LabelMap(said, names, background))
    return answers


def test_label_maps_are_scored_by_group() -> None:
    figures = answered().compute_figures()
    assert list(dict.fromkeys(name.split()[0] for name in figures)) == ["touching", "plain", "all"]
    for group in ("plain", "touching", "all"):
        scorer = SemanticScorer(LABELS, 0)
        for name in TRUE:
            if group in (GROUPS[name], "all"):
                scorer.add(labels(TRUE[name]), labels(SAID[name]))
        s = scorer.compute_scores()
        expected = {"mIoU": s.mean_iou, "mIoU of things": s.mean_iou_things, "pixel accuracy": s.pixel_accuracy}
        for what, value in expected.items():
            assert value is not None
            assert figures[f"{group} {what}"] == round(100 * value, 2)
    assert figures["plain pixel accuracy"] == round(100 * 4 / 7, 2)
    assert figures["touching mIoU"] == round(100 * (1 + 0.5 + 0) / 3, 2)  # the dog is a false alarm


def test_names_count_and_not_their_order() -> None:
    assert answered(("cat", "Dog", "background"), 2).compute_figures() == answered().compute_figures()


def test_without_groups_there_is_one() -> None:
    answers = LabelMapAccumulator(IDS, dataset(), "weather")
    answers.add({"id": 7}, LabelMap(labels(SAID["one"]), LABELS, 0))
    assert list(answers.compute_figures()) == ["all mIoU", "all mIoU of things", "all pixel accuracy"]
    assert LabelMapAccumulator(IDS, dataset(), "weather").compute_figures() == {}


def test_pictures_of_one_name_keep_their_own_truth() -> None:
    twins = dataset()
    samples = tuple(SemanticSample("a", None, sample.read) for sample in twins)
    answers = LabelMapAccumulator(IDS, SemanticDataset("twins", LABELS, 0, samples, LABELS), "split")
    for id_, rows in zip(IDS, TRUE.values(), strict=True):
        answers.add({"id": id_}, LabelMap(labels(rows), LABELS, 0))
    assert answers.compute_figures()["all mIoU"] == 100


def test_what_cannot_be_scored_is_none() -> None:
    nothing = SemanticSample("v", None, lambda: labels([[VOID]]))
    answers = LabelMapAccumulator((1,), SemanticDataset("v", LABELS, 0, (nothing,), LABELS), "")
    answers.add({"id": 1}, LabelMap(labels([[1]]), LABELS, 0))
    assert set(answers.compute_figures().values()) == {None}


def test_label_maps_that_do_not_fit_are_refused() -> None:
    answers = LabelMapAccumulator(IDS, dataset(), "split")
    with pytest.raises(InputError, match="expected only names of the truth, got 1 that it does not have, 'bird'"):
        answers.add({"id": 7}, LabelMap(labels([[0, 0, 0, 0]]), ("bird",)))
    with pytest.raises(InputError, match=r"\(1, 4\).*\(1, 2\)"):
        answers.add({"id": 7}, LabelMap(labels([[0, 0]]), LABELS, 0))
