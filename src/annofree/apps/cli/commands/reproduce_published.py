"""``annofree reproduce`` for the recipe of a paper: its figures beside the paper's, on data that the user has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from annofree.apps.cli.process import command_clock
from annofree.apps.cli.progress import progress
from annofree.apps.cli.tables import console
from annofree.experiments.compare import keeper, missed, write_figures

if TYPE_CHECKING:
    from annofree.evaluation.accumulators import Figures
    from annofree.experiments.papers import PublishedRecipe, PublishedRun

__all__ = ["reproduce_published"]


def reproduce_published(
    recipe: Path, data: Path | None, out: Path | None, limit: int | None, only: Sequence[str], device: str
) -> list[str]:
    """Measure a paper's recipe on the data sets in ``data``, print its figures beside the paper's, and return what is off.

    Only figures that the recipe expects can be off, and none where ``limit`` leaves pictures out.
    """
    from annofree.experiments.papers import PublishedRecipe

    clock = command_clock()
    plan = PublishedRecipe.read(recipe)
    names = [run.name for run in plan.chosen(only)]
    with progress("images", clock=clock) as show:

        def begin(name: str) -> None:
            number = names.index(name)
            place = f" (run {number + 1} of {len(names)})" if len(names) > 1 else ""
            show.begin(f"{name}{place}: images", "loading models")

        figures = plan.measure(
            data, device=device, limit=limit, only=only, on_progress=show, on_run=begin, on_found=keeper(out)
        )
    minutes = clock.elapsed / 60
    _show(plan, figures, minutes)
    if out is not None:
        write_figures(out, recipe, figures, minutes)
    compared = [] if limit else plan.chosen(only)
    return [line for run in compared for line in missed(run.name, run.expected, figures[run.name], plan.tolerance)]


def _show(plan: PublishedRecipe, figures: dict[str, Figures], minutes: float) -> None:
    from rich.table import Table

    runs = [run for run in plan.runs if run.name in figures]
    shown = list(dict.fromkeys(name for run in runs for name in (*run.expected, *run.quoted)))
    table = Table(title=f"{plan.title}; in brackets {plan.paper}", caption=f"percent; {plan.tier}; {minutes:.1f} min")
    table.add_column("")
    for name in shown:
        table.add_column(name, justify="right")
    for run in runs:
        table.add_row(run.name, *(_cell(run, name, figures[run.name].get(name)) for name in shown))
    console().print(table)
    for run in runs:
        if run.note:
            print(f"{run.name}: {run.note}")


def _cell(run: PublishedRun, name: str, value: float | None) -> str:
    theirs = {**run.quoted, **run.expected}.get(name)
    return ("-" if value is None else f"{value:.1f}") + ("" if theirs is None else f" ({theirs:.1f})")
