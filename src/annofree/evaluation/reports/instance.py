"""Scores as tables for the terminal and plain dicts for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.table import Table

from annofree.evaluation.metrics.answer import AnswerScores
from annofree.evaluation.metrics.instance import InstanceScores
from annofree.evaluation.metrics.limits import list_limits, name_recall
from annofree.evaluation.metrics.oracles import Fix, OracleSplit
from annofree.evaluation.metrics.separation import Separation
from annofree.evaluation.metrics.shapes import IouType
from annofree.evaluation.predict_instances import Score
from annofree.io.text import clean_text

__all__ = [
    "ORACLE_HEADS",
    "as_oracle_table",
    "as_sentence",
    "as_table",
    "describe_candidates",
    "format_oracle_rows",
    "format_oracle_texts",
    "to_json_dict",
]

_APS = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "APs", "ap_medium": "APm", "ap_large": "APl"}

ORACLE_HEADS = ("", "AP", "gained", "F1", "gained", "what it means")
"""The columns of ``format_oracle_rows``."""

_ORACLES: Mapping[Fix, tuple[str, str]] = {
    "names": ("true names", "each prediction that fits a true instance (IoU 0.5) has its name"),
    "masks": ("best {shapes}", "each prediction has the best of all {shapes} for the instance of its name that it is near"),
    "order": ("perfect order", "right predictions come before wrong ones; F1 counts all that is said, in any order"),
    "all": ("all together", "names, then {shapes}, then order: what is missing then, no prediction offers"),
}


def as_table(rows: Mapping[str, InstanceScores], title: str) -> Table:
    """Show scores as a table, one row per name: percent with one decimal, '-' if undefined."""
    columns = {**_APS, **_recalls(max((s.max_detections for s in rows.values()), default=100))}
    table = Table(title=title, caption="percent")
    table.add_column("", no_wrap=True)
    for heading in (*columns.values(), "images", "truth", "predicted"):
        table.add_column(heading, justify="right")
    for name, scores in rows.items():
        values = [_percent(getattr(scores, field)) for field in columns]
        table.add_row(clean_text(name), *values, *map(str, (scores.n_images, scores.n_truth, scores.n_predictions)))
    return table


def _recalls(max_detections: int) -> dict[str, str]:
    """The recalls at COCO's smaller limits and at the largest, with their headings."""
    smaller = {f"ar{limit}": f"AR{limit}" for limit in list_limits(max_detections)[:-1]}
    return {**smaller, "ar": name_recall(max_detections)}


def as_oracle_table(split: OracleSplit, iou_type: IouType, title: str) -> Table:
    """Show the oracle split as a table, one row per fix, percent; the first row is the baseline."""
    table = Table(title=title, caption=describe_candidates(split))
    for place, heading in enumerate(ORACLE_HEADS):
        table.add_column(heading, justify="right" if 0 < place < len(ORACLE_HEADS) - 1 else "left", no_wrap=place == 0)
    for row in format_oracle_rows(split, iou_type):
        table.add_row(*row)
    return table


def format_oracle_rows(split: OracleSplit, iou_type: IouType) -> list[tuple[str, ...]]:
    """Return the cells of the oracle table, in percent: fix, AP, gain, F1, gain, meaning.

    >>> split = OracleSplit(0.5, 0.25, {}, 1.0, 8)
    >>> format_oracle_rows(split, "segm")
    [('as it is', '50.0', '', '25.0', '', 'what was scored')]
    """
    shapes = "masks" if iou_type == "segm" else "boxes"
    rows: list[tuple[str, ...]] = [("as it is", _percent(split.ap), "", _percent(split.f1), "", "what was scored")]
    for fix, oracle in split.oracles.items():
        name, means = (text.format(shapes=shapes) for text in _ORACLES[fix])
        gains = ["-" if gain is None else f"{100 * gain:+.1f}" for gain in (oracle.ap_gain, oracle.f1_gain)]
        rows.append((name, _percent(oracle.ap), gains[0], _percent(oracle.f1), gains[1], means))
    return rows


def format_oracle_texts(split: OracleSplit, iou_type: IouType) -> list[tuple[str, ...]]:
    """Return the oracle table for a page: caption, headings, and rows with their meaning in the first cell.

    >>> format_oracle_texts(OracleSplit(0.5, 0.25, {}, 1.0, 8), "bbox")[1:]
    [('', 'AP', 'gained', 'F1', 'gained'), ('as it is: what was scored', '50.0', '', '25.0', '')]
    """
    rows = [(f"{name}: {means}", *cells) for name, *cells, means in format_oracle_rows(split, iou_type)]
    return [(describe_candidates(split),), ORACLE_HEADS[:-1], *rows]


def describe_candidates(split: OracleSplit) -> str:
    """Describe the class-agnostic recall of the candidates, in a line.

    >>> describe_candidates(OracleSplit(0.5, 0.25, {}, 0.875, 8))
    'percent; of 8 true instances some prediction overlaps 87.5 % by IoU 0.5, whatever its name'
    """
    found = _percent(split.candidate_recall)
    return f"percent; of {split.n_truth:,} true instances some prediction overlaps {found} % by IoU 0.5, whatever its name"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def as_sentence(scores: AnswerScores) -> str:
    """Summarize answer quality in a line.

    >>> as_sentence(AnswerScores(11, 10, 9, 0, 0.25, None))
    '10 answers on 11 instances, 9 right: precision 90.0, recall 81.8, F1 85.7, duplicates 0.0 %; counts off by 0.25'
    """
    rates = {"precision": scores.precision, "recall": scores.recall, "F1": scores.f1, "duplicates": scores.duplicates}
    said = ", ".join(f"{name} {_percent(value)}" for name, value in rates.items())
    line = f"{scores.n_answers} answers on {scores.n_truth} instances, {scores.n_right} right: {said} %"
    line += "" if scores.count_error is None else f"; counts off by {scores.count_error:.2f}"
    return line + ("" if scores.calibration_error is None else f"; calibration error {_percent(scores.calibration_error)} %")


def to_json_dict(rows: Mapping[str, Score | OracleSplit]) -> dict[str, dict[str, Any]]:
    """Return scores as plain dicts by name: fractions in 0 .. 1, None (JSON null) if undefined.

    >>> to_json_dict({"zip": Separation(pairs=4, separated=3)})
    {'zip': {'pairs': 4, 'separated': 3, 'rate': 0.75}}
    """
    return {name: {**_fields(scores), **_rates(scores)} for name, scores in rows.items()}


def _fields(scores: Score | OracleSplit) -> dict[str, Any]:
    """The fields, the recall at the largest limit by the name of that limit: ``ar100``, ``ar300``."""
    named = {"ar": f"ar{scores.max_detections}"} if isinstance(scores, InstanceScores) else {}
    return {named.get(name, name): value for name, value in asdict(scores).items()}


def _rates(scores: Score | OracleSplit) -> dict[str, float | None]:
    """What is a property of the scores, and no field."""
    if isinstance(scores, Separation):
        return {"rate": scores.rate}
    if isinstance(scores, AnswerScores):
        return {name: getattr(scores, name) for name in ("precision", "recall", "f1", "duplicates")}
    return {}
