"""Predictions against the ground truth of one COCO file: groups of images, novel and base classes, each class, and a page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annofree.datasets.benchmarks.coco_ovd import BASE_48, NOVEL_17, select_coco_48_17
from annofree.datasets.benchmarks.unseen import keep_categories
from annofree.errors import InputError
from annofree.evaluation.metrics.coverage import Coverage, measure_coverage
from annofree.evaluation.metrics.errors import find_mistakes
from annofree.evaluation.metrics.instance import Counted, InstanceScores, count_instances
from annofree.evaluation.metrics.limits import list_limits
from annofree.evaluation.metrics.oracles import OracleSplit, evaluate_oracles
from annofree.evaluation.metrics.predictions import View, list_predicted_images, load_predictions, match_predictions
from annofree.evaluation.metrics.shapes import IouType
from annofree.evaluation.metrics.truth import check_run_lengths, check_truth
from annofree.evaluation.predict_instances import Score, score_predictions
from annofree.evaluation.reports.error_page import write_mistakes_page
from annofree.evaluation.reports.instance import format_oracle_texts, to_json_dict
from annofree.formats.coco import CocoFile
from annofree.structures import Image, Vocabulary

__all__ = ["COCO_17", "GroundTruth", "InstanceEvaluation", "Rows", "Rules", "read_predictions", "score_instances", "write_page"]

COCO_17 = "coco-17"
"""The word for COCO's split into 17 novel and 48 base classes."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Rules:
    """How predictions are compared."""

    # masks (segm) or boxes (bbox)
    iou_type: IouType
    # detections of an image and class that count, the most confident first
    max_detections: int

    def to_json_dict(self) -> dict[str, Any]:
        """The protocol in words, and the rules."""
        limits = "/".join(map(str, list_limits(self.max_detections)))
        protocol = f"COCO, maxDets {limits}, all categories of the truth"
        return {"protocol": protocol, "iou": self.iou_type, "max_detections": self.max_detections}


@dataclass(frozen=True)
class GroundTruth:
    """A COCO file as it counts: checked, and with the classes that are scored apart."""

    # the file as it is
    whole: CocoFile
    # what is scored
    known: CocoFile
    # class names by the name of their group, such as novel and base
    classes: Mapping[str, Collection[str]]

    @classmethod
    def of(cls, whole: CocoFile, novel: str | None = None) -> GroundTruth:
        """Check a file; ``novel`` are class names that are scored apart from all others, or COCO's 17.

        Raises InputError for what is no ground truth, and for a novel class that it does not have.
        """
        whole = check_truth(whole)
        if novel is None:
            return cls(whole, whole, {})
        if novel == COCO_17:
            return cls(whole, select_coco_48_17(whole), {"novel": NOVEL_17, "base": BASE_48})
        names = Vocabulary.of(novel).names
        keep_categories(whole, names)  # raises for a name that is not there
        rest = tuple(str(row["name"]) for row in whole.categories if row["name"] not in names)
        return cls(whole, whole, {"novel": names, "base": rest})

    def group_images(self, by: str | None) -> dict[str, list[int] | None]:
        """Image ids by group: of each value of the field ``by`` of an image, and ``all``.

        Raises InputError for an image without that field.
        """
        groups: dict[str, list[int] | None] = {}
        for row in self.known.images if by else []:
            if by not in row:
                raise InputError(f"expected each image of the truth to have the field {by!r}; {row['file_name']} has not")
            members = groups.setdefault(f"{by} {row[by]}", [])
            assert members is not None  # noqa: S101
            members.append(row["id"])
        return {**groups, "all": None}


@dataclass(frozen=True)
class InstanceEvaluation:
    """Scores of instances."""

    # by group of images, and for ``classes`` by class: scores by name
    scores: Mapping[str, Mapping[str, Any]]
    rules: Rules
    # what was scored: where predictions are from, notes, coverage
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def oracles(self) -> OracleSplit:
        """Where quality is lost, over all images."""
        split: OracleSplit = self.scores["all"]["oracles"]
        return split

    def to_json_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        scores = {group: to_json_dict(scores) for group, scores in self.scores.items()}
        return {**self.rules.to_json_dict(), **self.about, "scores": scores}


def read_predictions(path: Path, truth: GroundTruth, view: View = "class-aware") -> tuple[Rows, Coverage]:
    """Read predictions, matched to the ground truth's images and classes, and how many images have any.

    The class-agnostic view takes all, whatever they are called.
    Raises InputError for a file that holds no predictions, or those of other images.
    """
    file, known = load_predictions(path), truth.known
    images, classes = ({row["id"] for row in part} for part in (known.images, known.categories))
    rows = match_predictions(truth.whole, file, view, as_in_file=True)
    for number, row in enumerate(rows):
        check_run_lengths(row, f"prediction {number} of {path}")
    anything = view == "class-agnostic"
    found = [row for row in rows if row["image_id"] in images and (anything or row["category_id"] in classes)]
    return found, measure_coverage(known, found, list_predicted_images(truth.whole, file))


def score_instances(
    truth: GroundTruth,
    found: Rows,
    groups: Mapping[str, Sequence[int] | None],
    rules: Rules,
    *,
    per_class: bool = False,
    about: Mapping[str, Any],
) -> InstanceEvaluation:
    """Score predictions class-aware and class-agnostic, as an answer, and by oracles, for each group of images."""
    scores: dict[str, Mapping[str, Any]] = {
        group: {**_scores(truth.known, found, ids, rules), **_group_scores(truth, found, ids, rules)}
        for group, ids in groups.items()
    }
    if per_class:
        scores["classes"] = _count(truth.known, found, None, rules).score_classes()
    return InstanceEvaluation(scores, rules, about)


def _scores(truth: CocoFile, found: Rows, ids: Sequence[int] | None, rules: Rules) -> dict[str, Score | OracleSplit]:
    how: dict[str, Any] = {"iou_type": rules.iou_type, "max_detections": rules.max_detections}
    scores = score_predictions(truth, found, ids, **how)
    return {**scores, "oracles": evaluate_oracles(truth, found, image_ids=ids, **how)}


def _group_scores(truth: GroundTruth, found: Rows, ids: Sequence[int] | None, rules: Rules) -> dict[str, InstanceScores]:
    """Score each group of classes, class-aware: masks and boxes, or boxes alone."""
    scores: dict[str, InstanceScores] = {}
    kinds: dict[str, IouType] = {"masks": "segm", "boxes": "bbox"} if rules.iou_type == "segm" else {"boxes": "bbox"}
    for kind, iou_type in kinds.items() if truth.classes else ():
        counted = _count(truth.known, found, ids, Rules(iou_type, rules.max_detections))
        scores |= {f"{group} {kind}": counted.compute_scores(names) for group, names in truth.classes.items()}
    return scores


def _count(truth: CocoFile, found: Rows, ids: Sequence[int] | None, rules: Rules) -> Counted:
    return count_instances(truth, found, iou_type=rules.iou_type, image_ids=ids, max_detections=rules.max_detections)


def write_page(
    out: Path,
    truth: GroundTruth,
    found: Rows,
    evaluation: InstanceEvaluation,
    open_image: Callable[[str], Image] | None,
) -> Path:
    """Write where quality is lost, curves, classes and the worst errors as a page; crops come from ``open_image``."""
    rules = evaluation.rules
    counted = _count(truth.known, found, None, rules)
    mistakes = find_mistakes(truth.known, found, iou_type=rules.iou_type, max_detections=rules.max_detections)
    title = f"{sum(counted.n_predictions):,} answers on {counted.n_images:,} images"
    return write_mistakes_page(
        out,
        truth.known,
        counted,
        mistakes,
        title=title if rules.iou_type == "segm" else f"{title}, by their boxes",
        groups={name: counted.compute_scores(names) for name, names in truth.classes.items()},
        lost=format_oracle_texts(evaluation.oracles, rules.iou_type),
        image=open_image,
    )
