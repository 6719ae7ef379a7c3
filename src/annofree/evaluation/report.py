"""Scores for people and for programs: a table for the terminal, and plain dicts for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from rich.table import Table

from annofree.evaluation.instance import InstanceScores
from annofree.evaluation.separation import Separation

__all__ = ["as_table", "to_json_dict"]

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


def to_json_dict(rows: Mapping[str, InstanceScores | Separation]) -> dict[str, dict[str, float | int | None]]:
    """Return scores as plain dicts by name: fractions in 0 .. 1, None (JSON null) where there was nothing to score.

    >>> to_json_dict({"zip": Separation(pairs=4, separated=3)})
    {'zip': {'pairs': 4, 'separated': 3, 'rate': 0.75}}
    """
    rates = {name: {"rate": scores.rate} for name, scores in rows.items() if isinstance(scores, Separation)}
    return {name: {**asdict(scores), **rates.get(name, {})} for name, scores in rows.items()}
