"""What the runs of a recipe answered, gathered image by image and scored group by group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from annofree.datasets.benchmarks.semantic import SemanticDataset
from annofree.evaluation.metrics.answer import AnswerScores
from annofree.evaluation.metrics.boundaries import BoundaryScorer, mark_true_edges
from annofree.evaluation.metrics.corloc import compute_corloc
from annofree.evaluation.metrics.instance import InstanceScores, count_instances
from annofree.evaluation.metrics.semantic import SemanticScorer
from annofree.evaluation.metrics.separation import Separation
from annofree.evaluation.predict_instances import Score, score_predictions
from annofree.evaluation.predict_semantic import align_labels
from annofree.formats.coco import CocoFile
from annofree.structures import BoolArray, Detections, LabelMap

__all__ = [
    "Accumulator",
    "BoundaryAccumulator",
    "Figures",
    "InstanceAccumulator",
    "LabelMapAccumulator",
    "compute_figures",
    "keep_agnostic",
    "list_instance_figures",
    "score_apart",
    "to_percent",
]

_AGNOSTIC = "class-agnostic"

Figures = dict[str, float | None]
"""Percent by names such as ``plain AP`` or ``all mIoU``."""


def to_percent(value: float | None) -> float | None:
    """Return a share in percent, to two decimals; None stays None."""
    return None if value is None else round(100 * value, 2)


def keep_agnostic(figures: Figures) -> Figures:
    """The figures in which names play no part.

    >>> keep_agnostic({"all AP": 1.0, "all class-agnostic AP": 2.0})
    {'all class-agnostic AP': 2.0}
    """
    return {name: value for name, value in figures.items() if f" {_AGNOSTIC} " in name}


class Accumulator(Protocol):
    """Gathers what one run says of image after image."""

    def add(self, row: dict[str, Any], answer: Any) -> None:
        """Keep or count the answer for one image, a row of the truth's images."""
        ...

    def compute_figures(self) -> Figures:
        """Score what was gathered."""
        ...


class InstanceAccumulator:
    """Detections, kept as COCO annotations with the truth's ids; of ``agnostic`` ones names mean nothing and are not scored."""

    def __init__(self, truth: CocoFile, group_by: str, agnostic: bool = False) -> None:
        self._truth, self._group_by, self._agnostic = truth, group_by, agnostic
        self._ids = [row["id"] for row in truth.categories]
        self.found = CocoFile(images=truth.images, categories=truth.categories)

    def add(self, row: dict[str, Any], answer: Detections) -> None:
        """Keep the detections of one image."""
        self.found.add_annotations(answer.to_coco(row["id"], self._ids))

    def compute_figures(self) -> Figures:
        """AP, AR and separation, by group; of agnostic ones CorLoc, too, the share of images whose surest box meets a thing."""
        figures = compute_figures(self._truth, self.found, self._group_by)
        if not self._agnostic:
            return figures
        figures = keep_agnostic(figures)
        return figures | {f"all {_AGNOSTIC} CorLoc": to_percent(compute_corloc(self._truth, self.found).value)}


class BoundaryAccumulator:
    """Edges of clusters, or of masks, counted against those of true instances; none is kept."""

    def __init__(self, truth: CocoFile, group_by: str) -> None:
        self._true, self._group_by = mark_true_edges(truth), group_by
        self._scorers: dict[str, BoundaryScorer] = {}

    def add(self, row: dict[str, Any], answer: BoolArray) -> None:
        """Count the edges (H, W) of one image."""
        true, crowds = self._true[row["id"]]
        for group in dict.fromkeys((str(row.get(self._group_by, "all")), "all")):
            self._scorers.setdefault(group, BoundaryScorer()).add(true, answer, crowds)

    def compute_figures(self) -> Figures:
        """Precision, recall and F of edges within each tolerance, by group, all of them last."""
        figures: Figures = {}
        for group, scorer in sorted(self._scorers.items(), key=lambda item: item[0] == "all"):
            for s in scorer.compute_scores():
                named = {"precision": s.precision, "recall": s.recall, "F": s.f}
                figures |= {f"{group} edge {name} {s.tolerance:g} px": to_percent(v) for name, v in named.items()}
        return figures


class LabelMapAccumulator:
    """Label maps, counted against semantic truth as they come; none is kept.

    ``ids`` are the truth's ids of the data set's images, in its order.
    """

    def __init__(self, ids: Sequence[int], dataset: SemanticDataset, group_by: str) -> None:
        self._group_by, self._dataset = group_by, dataset
        self._samples = dict(zip(ids, dataset, strict=True))
        self._scorers: dict[str, SemanticScorer] = {}

    def add(self, row: dict[str, Any], answer: LabelMap) -> None:
        """Count the label map of one image."""
        truth = self._dataset.read_truth(self._samples[row["id"]]).labels
        said = align_labels(answer, self._dataset)
        for group in dict.fromkeys((str(row.get(self._group_by, "all")), "all")):
            scorer = self._scorers.setdefault(group, SemanticScorer(self._dataset.names, self._dataset.background))
            scorer.add(truth, said)

    def compute_figures(self) -> Figures:
        """Mean IoU, with and without the background, and pixel accuracy, by group, all of them last."""
        figures: Figures = {}
        for group, scorer in sorted(self._scorers.items(), key=lambda item: item[0] == "all"):
            s = scorer.compute_scores()
            named = {"mIoU": s.mean_iou, "mIoU of things": s.mean_iou_things, "pixel accuracy": s.pixel_accuracy}
            figures |= {f"{group} {name}": to_percent(value) for name, value in named.items()}
        return figures


def compute_figures(truth: CocoFile, found: CocoFile, group_by: str) -> Figures:
    """Score predictions for each group of images and for all of them, in percent, by names such as ``plain AP``."""
    groups: dict[str, list[int]] = {}
    for row in truth.images:
        groups.setdefault(str(row.get(group_by, "all")), []).append(row["id"])
    groups["all"] = [row["id"] for row in truth.images]
    figures: Figures = {}
    for group, image_ids in groups.items():
        for view, scores in score_predictions(truth, found, image_ids).items():
            figures |= {f"{group} {name}": value for name, value in _named(view, scores).items()}
    return figures


def score_apart(truth: CocoFile, found: CocoFile, novel: Sequence[str]) -> Figures:
    """Score ``novel`` names of the truth, and all others, by names such as ``novel AP50``; nothing of names that it has not."""
    names = [row["name"] for row in truth.categories]
    groups = {"novel": [n for n in names if n in novel], "base": [n for n in names if n not in novel]}
    counted = {
        "": count_instances(truth, found.annotations, iou_type="segm"),
        "box ": count_instances(truth, found.annotations, iou_type="bbox"),
    }
    figures: Figures = {}
    for group, own in groups.items():
        for kind, counts in counted.items() if own else ():
            columns = list_instance_figures(counts.compute_scores(own))
            figures |= {f"{group} {kind}{name}": value for name, value in columns.items()}
    return figures


def list_instance_figures(scores: InstanceScores) -> Figures:
    """The columns of the papers' tables, in percent."""
    values = {"AP": scores.ap, "AP50": scores.ap50, "AP75": scores.ap75}
    values |= {"AP small": scores.ap_small, "AP medium": scores.ap_medium, "AP large": scores.ap_large}
    values |= {"AR10": scores.ar10, "AR100": scores.ar100}
    return {name: to_percent(value) for name, value in values.items()}


def _of_answer(scores: AnswerScores) -> Figures:
    """What a person gets; all in percent but the count error, which is in instances."""
    shares = {"precision": scores.precision, "recall": scores.recall, "F1": scores.f1, "duplicates": scores.duplicates}
    count = None if scores.count_error is None else round(scores.count_error, 3)
    return {n: to_percent(v) for n, v in shares.items()} | {
        "count error": count,
        "calibration error": to_percent(scores.calibration_error),
    }


def _named(view: str, scores: Score) -> Figures:
    if isinstance(scores, AnswerScores):
        return _of_answer(scores)
    prefix = {"class-aware masks": "", "class-aware separation": "", "class-aware boxes": "box "}.get(
        view, f"{view.replace(' masks', '').replace(' separation', '')} "
    )
    if isinstance(scores, Separation):
        return {f"{prefix}separated": to_percent(scores.rate)}
    return {f"{prefix}{name}": value for name, value in list_instance_figures(scores).items()}
