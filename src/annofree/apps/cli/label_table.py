"""The table of labels that were chosen from a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["label_table"]

_FEW = 8  # names of those without a label
_DROPS = ("score", "area", "duplicate", "fragment", "most", "per_class")


def label_table(info: Mapping[str, Any]) -> str:
    """A line a class that anything was found of, what each rule dropped, and the names that are left without a label."""
    rows = [
        (name, f"{row['found']}", f"{row['labels']}", f"{row['pictures']}", _least(info["min_scores"], name))
        for name, row in info["classes"].items()
        if row["found"] or row["labels"]
    ]
    head = ("class", "found", "labels", "pictures", "min score")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [
        "  ".join(text.ljust(w) if not i else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True)))
        for row in (head, *rows)
    ]
    counts = info["counts"]
    dropped = [f"{counts[key]} by {key.replace('_', ' ')}" for key in _DROPS if counts[key]]
    lines.append(f"{counts['found']} found, {counts['kept']} kept; dropped: {', '.join(dropped) or 'none'}")
    if "earlier" in info:
        lines.append(f"earlier labels: {counts['earlier']} stay, {counts['earlier_gone']} go")
    if without := [name for name, row in info["classes"].items() if not row["labels"]]:
        few = ", ".join(without[:_FEW]) + (" ..." if len(without) > _FEW else "")
        lines.append(f"no label of {len(without)} of {len(info['classes'])} names, so none of these is learned: {few}")
        lines.append("a lower --min-score with --per-class gives each name its best ones")
    return "\n".join(lines)


def _least(scores: Mapping[str, float], name: str) -> str:
    return f"{scores[name]:.3f}" if name in scores else ""
