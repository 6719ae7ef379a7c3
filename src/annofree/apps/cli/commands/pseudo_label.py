"""``annofree pseudo-label``: what a run found, turned into labels that a detector can learn from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from annofree.apps.cli.progress import progress

__all__ = ["pseudo_label"]

_BY_CLASS = 'A number for all classes, or "NAME=NUMBER" for one; may be given several times.'


def pseudo_label(
    run: Annotated[Path, typer.Argument(help="The folder of a run, with instances.", metavar="RUN", show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder to write labels.json and sheet.jpg to.", show_default=False)],
    min_score: Annotated[list[str] | None, typer.Option(help=f"Least score, else 0. {_BY_CLASS}")] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help=f"Best share of a class's instances over the least score, else 1. {_BY_CLASS}")
    ] = None,
    agnostic: Annotated[
        bool, typer.Option(help='Call all things "object"; of two over each other the stronger stays.')
    ] = False,
    min_area: Annotated[int, typer.Option(help="Fewest px of a thing.", min=1)] = 1,
    within: Annotated[
        float,
        typer.Option(help="Of two of one class with more mask IoU than this the stronger stays; 1 keeps all.", min=0, max=1),
    ] = 0.5,
    across: Annotated[float, typer.Option(help="The same for two of different classes; 1 keeps all.", min=0, max=1)] = 1.0,
    inside: Annotated[
        float,
        typer.Option(help="What lies by more than this part in a bigger one of its class goes; 1 keeps all.", min=0, max=1),
    ] = 0.9,
    most: Annotated[int | None, typer.Option(help="Most things of a picture, the best.", min=1)] = None,
    per_class: Annotated[int | None, typer.Option(help="Most things of a class, the best, over all pictures.", min=1)] = None,
    rare: Annotated[
        float,
        typer.Option(
            help="Classes in less than this part f of the pictures repeat theirs sqrt(RARE / f) times (LVIS: 0.001); 0: none.",
            min=0,
            max=1,
        ),
    ] = 0.0,
    drop_empty: Annotated[bool, typer.Option(help="Leave out pictures without a label.")] = False,
    merge: Annotated[
        Path | None, typer.Option(help="Labels of an earlier round: theirs that no new one overlaps stay.", metavar="LABELS")
    ] = None,
    merge_iou: Annotated[
        float, typer.Option(help="Earlier ones stay if their mask IoU with every new one is under this.", min=0, max=1)
    ] = 0.5,
    images: Annotated[Path | None, typer.Option(help="Where the pictures are, if not where the run had them.")] = None,
    sheet: Annotated[int, typer.Option(help="Labelled pictures on the contact sheet; 0 for no sheet.", min=0)] = 24,
    as_json: Annotated[bool, typer.Option("--json", help="Print what labels.json says of itself instead of a table.")] = False,
    quiet: Annotated[bool, typer.Option(help="Print nothing but errors.")] = False,
) -> None:
    """Turn what a run found into labels to train on: score floors, duplicates, fragments, balance; merge an earlier round in.

    labels.json is COCO; its info says which run, models and rules the labels come from, and what each rule dropped. Look at
    sheet.jpg before you train. Exit code 0: written; 2: the call was wrong, or nothing was left to label.

    Example: annofree pseudo-label out --out labels
    """
    from annofree.training.pseudo_labels.rules import ByClass, LabelRules
    from annofree.training.pseudo_labels.select import select_labels as write

    rules = LabelRules(
        min_score=ByClass.of(min_score or [], 0.0),
        keep=ByClass.of(keep or [], 1.0),
        agnostic=agnostic,
        min_area=min_area,
        within=within,
        across=across,
        inside=inside,
        most=most,
        per_class=per_class,
        drop_empty=drop_empty,
        rare=rare,
        earlier=merge_iou,
    )
    with progress("images", quiet or as_json) as show:
        info = write(run, out, rules, images=images, earlier=merge, sheet=sheet, on_progress=show)
    if as_json:
        print(json.dumps(info, indent=2))
    elif not quiet:
        print(f"{_table(info)}\nwritten: {out / 'labels.json'}" + (f"; look at {out / 'sheet.jpg'}" if sheet else ""))


def _table(info: Mapping[str, Any]) -> str:
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


_FEW = 8  # names of those without a label
_DROPS = ("score", "area", "duplicate", "fragment", "most", "per_class")
