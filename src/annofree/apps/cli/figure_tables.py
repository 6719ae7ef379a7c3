"""What ``annofree reproduce`` prints: the figures of a recipe in tables, and those that are off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from annofree.apps.cli.tables import open_console

if TYPE_CHECKING:
    from rich.table import Table

    from annofree.evaluation.accumulators import Figures
    from annofree.experiments.measure import Recipe
    from annofree.experiments.papers import PublishedRecipe, PublishedRun
    from annofree.experiments.reproduce import Reproduction

__all__ = ["print_reproduction"]

_COSTS = ("all seconds an image", "all times as fast", "all million parameters")
# What is shown of each run, where any run has it.
_SHOWN = (
    "plain AP",
    "plain AP50",
    "touching AP",
    "cluttered AP",
    "all AP",
    "all AR100",
    "all class-agnostic AP",
    "all class-agnostic CorLoc",
    "all edge F 1 px",
    "all edge F 2 px",
    "all edge F 3 px",
    "plain separated",
    "touching separated",
    "plain mIoU",
    "touching mIoU",
    "cluttered mIoU",
    "all mIoU",
    "all mIoU of things",
    "all pixel accuracy",
    *_COSTS,
)
_ANSWER = (
    *("all precision", "all recall", "plain F1", "touching F1", "cluttered F1", "all F1"),
    *("all duplicates", "all count error", "all calibration error"),
)
"""What the preset's policy outputs: in a table of its own."""


def print_reproduction(found: Reproduction) -> None:
    """Print the figures of a recipe, of whatever kind, and a line for each that is off."""
    from annofree.experiments.models import ModelRecipe
    from annofree.experiments.papers import PublishedRecipe

    recipe = found.recipe
    if isinstance(recipe, ModelRecipe):
        print(f"{recipe.title} ({recipe.world} world, percent); trained by: {recipe.command}")
        print("\n".join(f"  {name}: {value:.1f}" for name, value in found.figures[recipe.model].items()))
    elif isinstance(recipe, PublishedRecipe):
        _print_paper(recipe, found)
    else:
        _print_runs(recipe, found)
    for line in found.off:
        print(f"off: {line}")


def _print_runs(recipe: Recipe, found: Reproduction) -> None:
    """Print the tables for the runs of each task."""
    tasks = {run.name: run.task for run in recipe.runs if run.name in found.figures}
    for task in dict.fromkeys(tasks.values()):
        rows = {name: found.figures[name] for name in found.figures if tasks.get(name) == task}
        for columns in (_SHOWN, _ANSWER):
            shown = [name for name in columns if any(name in values for values in rows.values())]
            if shown:
                caption = f"percent, the count error in instances; {recipe.world} world; {recipe.tier}; "
                caption += f"seconds of {_name_hardware()}; " if columns is _SHOWN else ""
                table = _table(recipe.title, f"{caption}{found.minutes:.1f} min in all", shown)
                for run, values in rows.items():
                    table.add_row(run, *(_number(values.get(name), name) for name in shown))
                open_console().print(table)


def _print_paper(recipe: PublishedRecipe, found: Reproduction) -> None:
    """Print the figures beside the paper's, and the notes on them."""
    runs = [run for run in recipe.runs if run.name in found.figures]
    shown = list(dict.fromkeys([*(name for run in runs for name in (*run.expected, *run.quoted)), *_COSTS]))
    shown = [name for name in shown if any(name in found.figures[run.name] for run in runs) or name not in _COSTS]
    title = f"{recipe.title}; in brackets {recipe.paper}"
    table = _table(title, f"percent; {recipe.tier}; seconds of {_name_hardware()}; {found.minutes:.1f} min", shown)
    for run in runs:
        table.add_row(run.name, *(_beside(run, name, found.figures[run.name]) for name in shown))
    open_console().print(table)
    for run in runs:
        if run.note:
            print(f"{run.name}: {run.note}")


def _table(title: str, caption: str, columns: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(title=title, caption=caption)
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    return table


def _beside(run: PublishedRun, name: str, figures: Figures) -> str:
    theirs = {**run.quoted, **run.expected}.get(name)
    return _number(figures.get(name), name) + ("" if theirs is None else f" ({theirs:.1f})")


def _number(value: float | None, name: str = "") -> str:
    """A figure in a tenth of a percent; seconds as they are."""
    return "-" if value is None else f"{value:.3g}" if name == _COSTS[0] else f"{value:.1f}"


def _name_hardware() -> str:
    """What the seconds were measured on."""
    from annofree.runs.environment import describe_environment

    held = describe_environment()
    return f"{held.get('gpu') or held['processor']}, {held['threads']} threads"
