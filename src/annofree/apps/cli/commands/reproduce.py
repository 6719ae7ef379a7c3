"""``annofree reproduce``: measure a recipe again and compare it with what it expects."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from annofree.apps.cli.process import command_clock
from annofree.apps.cli.progress import progress
from annofree.apps.cli.tables import console
from annofree.experiments.compare import keeper, missed, write_figures

if TYPE_CHECKING:
    from annofree.experiments.measure import Figures, Recipe

__all__ = ["reproduce"]

_MAKING = "what was made"

# What is shown of each run, where any run has it.
_SHOWN = (
    "plain AP",
    "plain AP50",
    "touching AP",
    "cluttered AP",
    "all AP",
    "all AR100",
    "all class-agnostic AP",
    "plain separated",
    "touching separated",
    "plain mIoU",
    "touching mIoU",
    "cluttered mIoU",
    "all mIoU",
    "all mIoU of things",
    "all pixel accuracy",
)
_ANSWER = (
    *("all precision", "all recall", "plain F1", "touching F1", "cluttered F1", "all F1"),
    *("all duplicates", "all count error", "all calibration error"),
)
"""What a person gets: in a table of its own."""


def reproduce(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as recipes/emoji/zip.toml.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="Write figures, predictions and what is made to this folder; a run stopped there goes on."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Take only the first N pictures of each group; compares nothing.", min=1)
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Take only this run; may be given several times.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="For a paper's recipe: the folder of its data sets.", envvar="ANNOFREE_DATA")
    ] = None,
    device: Annotated[str, typer.Option(help="For what is made, and for a paper's recipe: auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Measure a recipe again and print its figures; exit code 1 when one is off by more than the tolerance.

    The recipe of a bundled model examines that model, which needs the emoji font; its command trains it anew.  A recipe that
    makes something first, such as recipes/emoji/zutis.toml, makes it in --out, or in reproduced/ and the recipe's name.  The
    recipe of a paper, such as recipes/zutis/coco-20k.toml, says which data sets it needs, and where in --data they have to be.

    Example: annofree reproduce recipes/emoji/zip.toml
    """
    from annofree.apps.cli.commands.reproduce_published import reproduce_published
    from annofree.experiments.papers import is_published
    from annofree.io.atomic import make_folder

    if out is not None:
        make_folder(out)
    if is_published(recipe):
        off = reproduce_published(recipe, data, out, limit, only or [], device)
    else:
        off = _model(recipe, out) if _is_model(recipe) else _runs(recipe, out, limit, only, device)
    for line in off:
        print(f"off: {line}")
    raise typer.Exit(1 if off else 0)


def _is_model(recipe: Path) -> bool:
    try:
        return "model" in tomllib.loads(recipe.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # whoever reads it in earnest says what is wrong


def _model(recipe: Path, out: Path | None) -> list[str]:
    """Examine a bundled model; returns what is off."""
    from annofree.training.tiny.evaluate import ModelRecipe

    clock = command_clock()
    plan = ModelRecipe.read(recipe)
    with progress("", clock=clock, loading=f"examining {plan.model}"):
        figures: Figures = {name: round(100 * value, 2) for name, value in plan.measure().items()}
    print(f"{plan.title} ({plan.world} world, percent); trained by: {plan.command}")
    for name, value in figures.items():
        print(f"  {name}: {value:.1f}")
    if out is not None:
        write_figures(out, recipe, {plan.model: figures}, clock.elapsed / 60)
    return missed(plan.model, plan.expected, figures, plan.tolerance)


def _runs(recipe: Path, out: Path | None, limit: int | None, only: list[str] | None, device: str) -> list[str]:
    """Run all runs of a recipe; returns what is off."""
    from annofree.experiments.measure import Recipe
    from annofree.experiments.measure import reproduce as measured
    from annofree.runs.clock import Clock

    clock = command_clock()
    plan = Recipe.read(recipe)
    out = out or (Path("reproduced") / recipe.stem if plan.make else None)
    stages = _made(plan, out, device) if out is not None and plan.make else {}
    with progress("images", clock=Clock.started() if stages else clock, loading="loading models and images") as show:
        figures = measured(plan, limit=limit, only=only or (), made=out, on_progress=show, on_found=keeper(out))
    minutes = clock.elapsed / 60
    _show(plan, figures, minutes)
    if out is not None:
        write_figures(out, recipe, {**({_MAKING: stages} if stages else {}), **figures}, minutes)
    off = missed(_MAKING, plan.make.get("expected", {}), stages, plan.tolerance)
    expected = [] if limit or only else plan.runs
    return off + [line for r in expected for line in missed(r.name, r.expected, figures[r.name], plan.tolerance)]


def _made(plan: Recipe, out: Path, device: str) -> Figures:
    """Make what a recipe needs before it measures; returns the figures of the stages."""
    from annofree.io.atomic import make_folder
    from annofree.methods.components import device_named
    from annofree.pipelines.makings import making_of

    make_folder(out)
    return making_of(plan.make).make(out, progress, device_named(device))


def _show(plan: Recipe, figures: dict[str, Figures], minutes: float) -> None:
    """Print the tables for the runs of each task."""
    tasks = {run.name: run.task for run in plan.runs}
    for task in dict.fromkeys(tasks[run] for run in figures):
        rows = {run: values for run, values in figures.items() if tasks[run] == task}
        for columns in (_SHOWN, _ANSWER):
            _table(plan, rows, columns, minutes)


def _table(plan: Recipe, rows: dict[str, Figures], columns: Sequence[str], minutes: float) -> None:
    """Print those of the columns that any run has, if there are any."""
    from rich.table import Table

    shown = [name for name in columns if any(name in values for values in rows.values())]
    if shown:
        table = Table(
            title=plan.title,
            caption=f"percent, the count error in instances; {plan.world} world; {plan.tier}; {minutes:.1f} min in all",
        )
        table.add_column("")
        for name in shown:
            table.add_column(name, justify="right")
        for run, values in rows.items():
            table.add_row(run, *("-" if values.get(n) is None else f"{values[n]:.1f}" for n in shown))
        console().print(table)
