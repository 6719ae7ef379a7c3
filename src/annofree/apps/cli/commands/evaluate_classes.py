"""What ``annofree evaluate`` says beyond means over all classes: of novel and base ones, of each, and on a page."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annofree.errors import InputError

if TYPE_CHECKING:
    from annofree.evaluation.metrics.instance import InstanceScores
    from annofree.evaluation.metrics.oracles import OracleSplit
    from annofree.evaluation.metrics.shapes import IouType
    from annofree.formats.coco import CocoFile

__all__ = ["COCO_17", "Rules", "class_scores", "group_scores", "of_truth", "split_truth", "write_page"]

Groups = Mapping[str, Collection[str]]


@dataclass(frozen=True)
class Rules:
    """What is compared, masks (segm) or boxes (bbox), and how many detections an image and class count."""

    iou_type: IouType
    max_detections: int


COCO_17 = "coco-17"


def split_truth(truth: CocoFile, novel: str | None) -> tuple[CocoFile, dict[str, tuple[str, ...]]]:
    """Return the truth that counts, and the novel and base names: those given and all others, or COCO's 17 and 48."""
    from annofree.datasets.benchmarks.coco_ovd import BASE_48, NOVEL_17, coco_48_17
    from annofree.datasets.benchmarks.unseen import only
    from annofree.structures import Vocabulary

    if novel is None:
        return truth, {}
    if novel == COCO_17:
        return coco_48_17(truth), {"novel": NOVEL_17, "base": BASE_48}
    names = Vocabulary.of(novel).names
    only(truth, names)  # raises for a name that is not there
    rest = tuple(str(row["name"]) for row in truth.categories if row["name"] not in names)
    return truth, {"novel": names, "base": rest}


def of_truth(rows: Sequence[dict[str, Any]], truth: CocoFile) -> list[dict[str, Any]]:
    """Keep the predictions that are of the truth's pictures and classes."""
    images, classes = ({row["id"] for row in part} for part in (truth.images, truth.categories))
    return [row for row in rows if row["image_id"] in images and row["category_id"] in classes]


def group_scores(truth: CocoFile, found: Any, ids: list[int] | None, groups: Groups, rules: Rules) -> dict[str, InstanceScores]:
    """Score each group of classes, class-aware: masks and boxes, or boxes alone."""
    from annofree.evaluation.metrics.instance import count_instances

    scores: dict[str, InstanceScores] = {}
    kinds: dict[str, IouType] = {"masks": "segm", "boxes": "bbox"} if rules.iou_type == "segm" else {"boxes": "bbox"}
    for kind, iou_type in kinds.items() if groups else ():
        counted = count_instances(truth, found, iou_type=iou_type, image_ids=ids, max_detections=rules.max_detections)
        scores |= {f"{group} {kind}": counted.scores(names) for group, names in groups.items()}
    return scores


def class_scores(truth: CocoFile, found: Any, rules: Rules) -> dict[str, InstanceScores]:
    """Score the masks, or the boxes, of each class, of all pictures."""
    from annofree.evaluation.metrics.instance import count_instances

    return count_instances(truth, found, iou_type=rules.iou_type, max_detections=rules.max_detections).by_class()


def write_page(
    out: Path, truth: CocoFile, found: Any, pictures: Path | None, groups: Groups, rules: Rules, split: OracleSplit
) -> Path:
    """Write where quality is lost, curves, classes and the worst mistakes as a page; crops are cut from ``pictures``."""
    from annofree.evaluation.metrics.errors import find_mistakes
    from annofree.evaluation.metrics.instance import count_instances
    from annofree.evaluation.reports.error_page import write_mistakes_page
    from annofree.evaluation.reports.instance import oracle_texts
    from annofree.runs.images import open_below

    if pictures is not None and not pictures.is_dir():
        raise InputError(f"expected the folder of the truth's pictures, got {pictures}; check --pictures")
    iou_type, limit = rules.iou_type, rules.max_detections
    counted = count_instances(truth, found, iou_type=iou_type, max_detections=limit)
    mistakes = find_mistakes(truth, found, iou_type=iou_type, max_detections=limit)
    title = f"{sum(counted.n_predictions):,} answers on {counted.n_images:,} pictures"
    return write_mistakes_page(
        out,
        truth,
        counted,
        mistakes,
        title=title if iou_type == "segm" else f"{title}, by their boxes",
        groups={name: counted.scores(names) for name, names in groups.items()},
        lost=oracle_texts(split, iou_type),
        picture=None if pictures is None else open_below(pictures),
    )
