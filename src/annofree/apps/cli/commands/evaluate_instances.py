"""``annofree evaluate`` of instances: AP, AR, touching pairs, the answer, and where quality is lost."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annofree.apps.cli.commands.evaluate_classes import Rules, class_scores, group_scores, of_truth, split_truth, write_page
from annofree.apps.cli.tables import console
from annofree.errors import InputError

if TYPE_CHECKING:
    from annofree.evaluation.metrics.coverage import Coverage
    from annofree.formats.coco import CocoFile

__all__ = ["Asked", "evaluate_instances"]

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Asked:
    """What the call asks of a scoring of instances, as the options of ``annofree evaluate`` name it."""

    by: str | None
    novel: str | None
    per_class: bool
    page: Path | None
    pictures: Path | None
    iou: str | None
    max_detections: int
    out: Path | None
    as_json: bool


def evaluate_instances(
    truth: Path, predictions: Path | None, run: Callable[[CocoFile], tuple[Rows, dict[str, Any]]], asked: Asked
) -> None:
    """Score a file of predictions, or what ``run`` finds for a truth; print, and write what was asked for."""
    from annofree.formats.coco import CocoFile

    whole = CocoFile.read(truth)  # before what is heavy, so that a missing file is refused at once
    from annofree.evaluation.metrics.shapes import choose_iou_type
    from annofree.evaluation.metrics.truth import check_truth

    check_truth(whole)
    known, apart = split_truth(whole, asked.novel)
    groups = _groups(known, asked.by)
    if predictions is None:
        choose_iou_type(known, [], asked.iou)  # methods give masks: what the truth lacks is said before one runs
    found, about, coverage = _read(predictions, whole, known) if predictions else (*run(known), None)
    iou_type, boxes = choose_iou_type(known, found, asked.iou)
    rules = Rules(iou_type, asked.max_detections)
    notes = [note for note in (boxes, coverage and coverage.note) if note]
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    results = {
        group: {**_scores(known, found, ids, rules), **group_scores(known, found, ids, apart, rules)}
        for group, ids in groups.items()
    }
    split = results["all"]["oracles"]
    results |= {"classes": class_scores(known, found, rules)} if asked.per_class else {}
    told = {**_about(rules), **about, "notes": notes}
    told |= {} if coverage is None else {"coverage": coverage.to_json_dict()}
    if not asked.as_json:
        _show(results, rules)
    _write(told, results, asked.out, asked.as_json)
    if asked.page is not None:
        index = write_page(asked.page, known, found, asked.pictures, apart, rules, split)
        print(f"written: {index}", file=sys.stderr if asked.as_json else sys.stdout)


def _about(rules: Rules) -> dict[str, Any]:
    from annofree.evaluation.metrics.limits import limits_of

    limits = "/".join(map(str, limits_of(rules.max_detections)))
    protocol = f"COCO, maxDets {limits}, all categories of the truth"
    return {"protocol": protocol, "iou": rules.iou_type, "max_detections": rules.max_detections}


def _read(predictions: Path, whole: CocoFile, known: CocoFile) -> tuple[Rows, dict[str, Any], Coverage]:
    from annofree.evaluation.metrics.coverage import coverage_of
    from annofree.evaluation.metrics.predictions import listed_images, load_predictions, match_predictions

    file = load_predictions(predictions)
    found = of_truth(match_predictions(whole, file), known)
    return found, {"predictions": predictions.name}, coverage_of(known, found, listed_images(whole, file))


def _groups(truth: CocoFile, by: str | None) -> dict[str, list[int] | None]:
    groups: dict[str, list[int] | None] = {}
    for row in truth.images if by else []:
        if by not in row:
            raise InputError(f"expected each picture of the truth to have the field {by!r}; {row['file_name']} has not")
        members = groups.setdefault(f"{by} {row[by]}", [])
        assert members is not None  # noqa: S101
        members.append(row["id"])
    return {**groups, "all": None}


def _scores(truth: CocoFile, found: Rows, ids: Sequence[int] | None, rules: Rules) -> dict[str, Any]:
    from annofree.evaluation.metrics.oracles import evaluate_oracles
    from annofree.evaluation.predict_instances import scores_of

    how: dict[str, Any] = {"iou_type": rules.iou_type, "max_detections": rules.max_detections}
    scores = scores_of(truth, found, ids, **how)
    return {**scores, "oracles": evaluate_oracles(truth, found, image_ids=ids, **how)}


def _show(results: dict[str, dict[str, Any]], rules: Rules) -> None:
    from annofree.evaluation.metrics.answer import AnswerScores
    from annofree.evaluation.metrics.instance import InstanceScores
    from annofree.evaluation.metrics.oracles import OracleSplit
    from annofree.evaluation.metrics.separation import Separation
    from annofree.evaluation.reports.instance import as_sentence, as_table, oracle_table

    screen = console()
    for group, scores in results.items():
        screen.print(as_table({n: s for n, s in scores.items() if isinstance(s, InstanceScores)}, group))
        for name, s in scores.items():
            if isinstance(s, Separation):
                rate = "-" if s.rate is None else f"{100 * s.rate:.1f} %"
                screen.print(f"{name}: {s.separated} of {s.pairs} touching same-class pairs, {rate}")
            elif isinstance(s, AnswerScores):
                screen.print(f"as an answer: {as_sentence(s)}")
            elif isinstance(s, OracleSplit):
                screen.print(oracle_table(s, rules.iou_type, f"{group}: where quality is lost"))


def _write(told: dict[str, Any], results: dict[str, dict[str, Any]], out: Path | None, as_json: bool) -> None:
    from annofree.evaluation.reports.instance import to_json_dict
    from annofree.io.atomic import write_json

    whole = {**told, "scores": {group: to_json_dict(scores) for group, scores in results.items()}}
    if out is not None:
        write_json(out, whole, indent=2)
    if as_json:
        print(json.dumps(whole, indent=2, ensure_ascii=False))
