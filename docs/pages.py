"""What the scripts that fill pages share: tables of figures, and the place in a page that they are put in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from annofree.errors import InputError
from annofree.io.atomic import write_atomic
from annofree.io.images import read_image
from annofree.render.overlay import draw_overlay

__all__ = ["END", "INSTANCES", "MADE", "fill", "round_figure", "stack_overlays", "table", "text", "write_expected"]

END = "<!-- end of numbers -->"
MADE = "what was made"
"""The name of the making among the runs of figures.json."""
INSTANCES = ("plain AP", "touching AP", "cluttered AP", "all AP", "all AP50", "all AR100", "all class-agnostic AP")
"""The figures of instances that pages show."""


def table(figures: Mapping[str, Mapping[str, Any]], columns: Sequence[str], write: Callable[[Any], str] | None = None) -> str:
    """Lay out the runs that have the last of some figures as a Markdown table; ``write`` writes a figure, as ``text`` does."""
    rows = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for run, values in figures.items():
        if columns[-1] in values:
            rows.append(f"| {run} | " + " | ".join((write or text)(values.get(name)) for name in columns) + " |")
    return "\n".join(rows)


def text(value: float | None) -> str:
    """Write a figure with one digit after the point, a dash for none."""
    return "–" if value is None else f"{value:.1f}"


def stack_overlays(files: Sequence[Path], names: Sequence[str], methods: Sequence[tuple[Any, float]]) -> PIL.Image.Image:
    """Draw what methods find, each from a least score on, one below the other: an image a column, half as large as overlays."""
    columns = []
    for image in map(read_image, files):
        found = [(method.instances(method.encode([image])[0], names), least) for method, least in methods]
        columns.append(np.concatenate([np.asarray(draw_overlay(image, each, least)) for each, least in found]))
    whole = PIL.Image.fromarray(np.concatenate(columns, axis=1))
    return whole.resize((whole.width // 2, whole.height // 2), PIL.Image.Resampling.LANCZOS)


def fill(page: Path, begin: str, numbers: str, runs: Sequence[str] = ()) -> None:
    """Put Markdown between the mark ``begin`` of a page and the next ``END``; raises InputError where a mark is missing.

    Rows of ``runs`` that were not measured stay as they are.
    """
    whole = page.read_text(encoding="utf-8")
    before, mark, rest = whole.partition(begin)
    _, end, after = rest.partition(END)
    if not (mark and end):
        raise InputError(f"expected {begin} and then {END} in {page}; put them where the numbers belong")
    filled = f"{before}{begin}\n\n{_keep_rows(rest.partition(END)[0], numbers, runs)}\n\n{END}{after}"
    write_atomic(page, lambda temporary: temporary.write_text(filled, encoding="utf-8"))


def _keep_rows(before: str, numbers: str, runs: Sequence[str]) -> str:
    """Add to each table the rows of runs that it had ``before`` and has no more, in the order of the runs."""
    old, new = before.strip().split("\n\n"), numbers.split("\n\n")
    if not runs or len(old) != len(new):
        return numbers
    for k, (was, part) in enumerate(zip(old, new, strict=True)):
        head, body = part.split("\n")[:2], [*was.split("\n")[2:], *part.split("\n")[2:]]
        if part.startswith("|") and was.split("\n")[0] == head[0]:
            rows = {line.split("|")[1].strip(): line for line in body}  # what was measured last
            new[k] = "\n".join([*head, *(rows[name] for name in runs if name in rows)])
    return "\n\n".join(new)


def round_figure(name: str, value: float) -> str:
    """Write a figure with as many digits as pages and recipes have of it."""
    return f"{value:.2f}" if name.endswith("count error") else f"{value:.1f}"


def write_expected(
    path: Path, figures: Mapping[str, Mapping[str, Any]], usual: Sequence[str], *, as_told: bool = False
) -> None:
    """Put what was measured into a recipe, run by run, in the place of what was expected.

    Of a run those of the ``usual`` figures are expected that it has; ``as_told``, those that it expected already.  A run that
    was not measured stays as it is.
    """
    blocks = path.read_text(encoding="utf-8").split("[[run]]\n")
    for k, block in enumerate(blocks[1:], 1):
        measured = figures.get(re.findall(r'^name = "(.*)"$', block, re.MULTILINE)[0], {})
        told = re.search(r"^expected = \{(.*)\}$", block, re.MULTILINE)
        if not measured:
            continue
        names = re.findall(r'"([^"]+)" =', told[1]) if as_told and told else usual
        listed = ", ".join(f'"{n}" = {float(round_figure(n, measured[n]))}' for n in names if measured.get(n) is not None)
        lines = [line for line in block.split("\n") if not line.startswith("expected = ")]
        last = max(i for i, line in enumerate(lines) if line and not line.startswith("#"))
        lines[last + 1 : last + 1] = [f"expected = {{ {listed} }}"] if listed else []
        blocks[k] = "\n".join(lines)
    write_atomic(path, lambda temporary: temporary.write_text("[[run]]\n".join(blocks), encoding="utf-8"))
