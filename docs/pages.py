"""What the scripts that fill pages share: tables of figures, and the place in a page that they are put in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.io.atomic import write_atomic

__all__ = ["END", "INSTANCES", "MADE", "fill", "table", "text"]

END = "<!-- end of numbers -->"
MADE = "what was made"
"""The name of the making among the runs of figures.json."""
INSTANCES = ("plain AP", "touching AP", "cluttered AP", "all AP", "all AP50", "all AR100", "all class-agnostic AP")
"""The figures of instances that pages show."""


def table(figures: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Lay out the runs that have the last of some figures as a Markdown table."""
    rows = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for run, values in figures.items():
        if columns[-1] in values:
            rows.append(f"| {run} | " + " | ".join(text(values.get(name)) for name in columns) + " |")
    return "\n".join(rows)


def text(value: float | None) -> str:
    """Write a figure with one digit after the point, a dash for none."""
    return "–" if value is None else f"{value:.1f}"


def fill(page: Path, begin: str, numbers: str) -> None:
    """Put Markdown between the mark ``begin`` of a page and the next ``END``; raises InputError where a mark is missing."""
    whole = page.read_text(encoding="utf-8")
    before, mark, rest = whole.partition(begin)
    _, end, after = rest.partition(END)
    if not (mark and end):
        raise InputError(f"expected {begin} and then {END} in {page}; put them where the numbers belong")
    filled = f"{before}{begin}\n\n{numbers}\n\n{END}{after}"
    write_atomic(page, lambda temporary: temporary.write_text(filled, encoding="utf-8"))
