"""Scores for people and for programs: a table for the terminal, and plain dicts for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from rich.table import Table

from annofree.evaluation.answer_quality import AnswerScores
from annofree.evaluation.instance import InstanceScores
from annofree.evaluation.running import Score
from annofree.evaluation.separation import Separation

__all__ = ["as_sentence", "as_table", "to_json_dict"]

_COLUMNS = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "APs",
    "ap_medium": "APm",
    "ap_large": "APl",
    "ar1": "AR1",
    "ar10": "AR10",
    "ar100": "AR100",
}


def as_table(rows: Mapping[str, InstanceScores], title: str) -> Table:
    """Show scores as a table, one line a name: percent with one decimal, '-' where there was nothing to score."""
    table = Table(title=title, caption="percent")
    table.add_column("", no_wrap=True)
    for heading in (*_COLUMNS.values(), "images", "truth", "predicted"):
        table.add_column(heading, justify="right")
    for name, scores in rows.items():
        values = [_percent(getattr(scores, field)) for field in _COLUMNS]
        table.add_row(name, *values, *map(str, (scores.n_images, scores.n_truth, scores.n_predictions)))
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def as_sentence(scores: AnswerScores) -> str:
    """Say what a person gets, in a line.

    >>> as_sentence(AnswerScores(11, 10, 9, 0, 0.25, None))
    '10 answers on 11 instances, 9 right: precision 90.0, recall 81.8, F1 85.7, duplicates 0.0 %; counts off by 0.25'
    """
    rates = {"precision": scores.precision, "recall": scores.recall, "F1": scores.f1, "duplicates": scores.duplicates}
    said = ", ".join(f"{name} {_percent(value)}" for name, value in rates.items())
    line = f"{scores.n_answers} answers on {scores.n_truth} instances, {scores.n_right} right: {said} %"
    line += "" if scores.count_error is None else f"; counts off by {scores.count_error:.2f}"
    return line + ("" if scores.calibration_error is None else f"; calibration error {_percent(scores.calibration_error)} %")


def to_json_dict(rows: Mapping[str, Score]) -> dict[str, dict[str, float | int | None]]:
    """Return scores as plain dicts by name: fractions in 0 .. 1, None (JSON null) where there was nothing to score.

    >>> to_json_dict({"zip": Separation(pairs=4, separated=3)})
    {'zip': {'pairs': 4, 'separated': 3, 'rate': 0.75}}
    """
    return {name: {**asdict(scores), **_rates(scores)} for name, scores in rows.items()}


def _rates(scores: Score) -> dict[str, float | None]:
    """What is a property of the scores, and no field."""
    if isinstance(scores, Separation):
        return {"rate": scores.rate}
    if isinstance(scores, AnswerScores):
        return {name: getattr(scores, name) for name in ("precision", "recall", "f1", "duplicates")}
    return {}
