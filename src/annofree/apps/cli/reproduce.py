"""``annofree reproduce``: measure a recipe again and compare it with what it expects."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annofree.apps.cli.progress import progress

if TYPE_CHECKING:
    from annofree.evaluation.recipes import Figures, Recipe

__all__ = ["reproduce"]

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
)


def reproduce(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as recipes/emoji/zip.toml.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Write figures and predictions to this folder.")] = None,
    limit: Annotated[
        int | None, typer.Option(help="Take only the first N pictures of each group; compares nothing.", min=1)
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Take only this run; may be given several times.")] = None,
) -> None:
    """Run all runs of a recipe and print their figures; exit code 1 when one is off by more than the tolerance."""
    from annofree.evaluation.recipes import Recipe
    from annofree.evaluation.recipes import reproduce as measured
    from annofree.formats.files import make_folder

    plan = Recipe.read(recipe)
    if out is not None:
        make_folder(out)
    started = time.monotonic()
    with progress("pictures") as show:
        figures = measured(plan, limit=limit, only=only or (), on_progress=show, on_found=_keeper(out))
    minutes = (time.monotonic() - started) / 60
    _show(plan, figures, minutes)
    if out is not None:
        _write(out, recipe, figures, minutes)
    off = [] if limit else _off(plan, figures)
    for line in off:
        print(f"off: {line}")
    raise typer.Exit(1 if off else 0)


def _keeper(out: Path | None) -> Any:
    def keep(name: str, found: Any) -> None:
        if out is not None:
            found.write(out / f"{''.join(c if c.isalnum() else '-' for c in name)}.json")

    return keep


def _show(plan: Recipe, figures: dict[str, Figures], minutes: float) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=plan.title, caption=f"percent, masks; {plan.world} world; {plan.tier}; {minutes:.1f} min")
    table.add_column("")
    for name in _SHOWN:
        table.add_column(name, justify="right")
    for run, values in figures.items():
        table.add_row(run, *("-" if values.get(n) is None else f"{values[n]:.1f}" for n in _SHOWN))
    Console(width=None if Console().is_terminal else 180).print(table)


def _write(out: Path, recipe: Path, figures: dict[str, Figures], minutes: float) -> None:
    from annofree.formats.files import write_json

    write_json(out / "figures.json", {"recipe": recipe.name, "minutes": round(minutes, 2), "figures": figures}, indent=2)


def _off(plan: Recipe, figures: dict[str, Figures]) -> list[str]:
    """Name every expected figure that was missed by more than the tolerance."""
    lines = []
    for run in plan.runs:
        for name, expected in run.expected.items() if run.name in figures else ():
            value = figures[run.name].get(name)
            if value is None or abs(value - expected) > plan.tolerance:
                lines.append(f"{run.name}: {name} is {value}, expected {expected} +- {plan.tolerance}")
    return lines
