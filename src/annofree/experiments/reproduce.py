"""Measure a recipe again, of whatever kind, and compare its figures with what it expects.

of runs    methods on a world that is here: experiments/measure.py
of a paper figures that a paper states, on data that the user has: experiments/papers.py
of a model what a bundled model reaches on held-out scenes: experiments/models.py
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annofree.experiments.compare import find_missed, make_figure_writer, write_figures
from annofree.experiments.recipe_file import read_fields
from annofree.io.arguments import as_list, check_range
from annofree.io.atomic import make_folder
from annofree.io.callbacks import Callbacks
from annofree.runs.clock import StageTimer

if TYPE_CHECKING:
    from annofree.evaluation.accumulators import Figures
    from annofree.experiments.measure import Recipe
    from annofree.experiments.models import ModelRecipe
    from annofree.experiments.papers import PublishedRecipe

__all__ = ["MADE", "Reproduction", "reproduce"]

MADE = "what was made"
"""The name of the figures of what a recipe makes before it measures."""


@dataclass(frozen=True)
class Reproduction:
    """What a recipe measured: figures in percent by run, those that are ``off`` in words, and the minutes that it took."""

    recipe: Recipe | PublishedRecipe | ModelRecipe
    figures: Mapping[str, Figures]
    off: tuple[str, ...]
    minutes: float


@dataclass(frozen=True)
class _Request:
    """What is measured of a recipe, where files are kept, and what hears of it."""

    # the recipe
    path: Path
    # the folder for figures, predictions and what is made; None keeps nothing
    out: Path | None
    # the first N images of each group only
    limit: int | None
    # names of the runs to measure; all where none is named
    only: Sequence[str]
    # the folder of a paper's data sets
    data: Path | None
    # of what is made, and of a paper's methods
    device: str
    # what hears of progress
    callbacks: Callbacks


def reproduce(
    recipe: str | Path,
    *,
    out: str | Path | None = None,
    limit: int | None = None,
    only: str | Sequence[str] = (),
    data: str | Path | None = None,
    device: str = "auto",
    callbacks: Callbacks = Callbacks(),
    clock: StageTimer | None = None,
) -> Reproduction:
    """Measure a recipe again and return its figures, with those that are off by more than its tolerance.

    ``out`` is the folder to write figures, predictions and what is made to; a call that was stopped is resumed there.
    ``limit`` takes the first images of each group, and compares nothing; ``only`` some runs, by name.  ``data`` is the folder
    of data sets for the recipe of a paper, else that which ANNOFREE_DATA names; ``device`` is for such a recipe, and for what
    is made.  Raises InputError for what is no recipe and for unknown runs, MissingError for data that are not there.

    >>> reproduce("recipes/emoji/zap.toml")
    Traceback (most recent call last):
    annofree.errors.InputError: expected a recipe at recipes/emoji/zap.toml, but it cannot be read: No such file or directory
    """
    check_range("limit", limit, 1)
    path, clock = Path(recipe), clock or StageTimer.started()
    fields = read_fields(path)  # before anything heavy is imported
    from annofree.experiments.papers import DATA_VARIABLE

    root, folder = data or os.environ.get(DATA_VARIABLE), None if out is None else Path(out)
    plan, measure = _recipe_of(fields, path)
    if folder is None and getattr(plan, "make", None):
        folder = Path("reproduced") / path.stem
    if folder is not None:
        make_folder(folder)
    asked = _Request(
        path, folder, limit, [str(name) for name in as_list(only)], Path(root) if root else None, device, callbacks
    )
    figures, off = measure(plan, asked)
    minutes = clock.elapsed / 60
    if folder is not None:
        write_figures(folder, path, figures, minutes)
    return Reproduction(plan, figures, tuple(off), minutes)


_Measured = tuple[dict[str, "Figures"], list[str]]


def _recipe_of(fields: dict[str, Any], path: Path) -> tuple[Any, Callable[[Any, _Request], _Measured]]:
    """Make the recipe that a file holds, and say how it is measured: a field that no other kind has tells its kind."""
    if "paper" in fields:
        from annofree.experiments.papers import PublishedRecipe

        return PublishedRecipe.of(fields, path), _measure_paper
    if "model" in fields:
        from annofree.experiments.models import ModelRecipe

        return ModelRecipe.of(fields, path), _measure_model
    from annofree.experiments.measure import Recipe

    return Recipe.of(fields, path), _measure_runs


def _measure_model(plan: ModelRecipe, asked: _Request) -> _Measured:
    asked.callbacks.on_stage("", f"examining {plan.model}")
    figures: Figures = {name: round(100 * value, 2) for name, value in plan.measure().items()}
    return {plan.model: figures}, find_missed(plan.model, plan.expected, figures, plan.tolerance)


def _measure_paper(plan: PublishedRecipe, asked: _Request) -> _Measured:
    runs = plan.select_runs(asked.only)
    names = [run.name for run in runs]

    def begin(name: str) -> None:
        place = f" (run {names.index(name) + 1} of {len(names)})" if len(names) > 1 else ""
        asked.callbacks.on_stage(f"{name}{place}: images", "loading models")

    figures = plan.measure(
        asked.data,
        device=asked.device,
        limit=asked.limit,
        only=asked.only,
        on_progress=asked.callbacks.on_progress,
        on_run=begin,
        on_found=make_figure_writer(asked.out),
    )
    compared = [] if asked.limit else runs
    return figures, [line for r in compared for line in find_missed(r.name, r.expected, figures[r.name], plan.tolerance)]


def _measure_runs(plan: Recipe, asked: _Request) -> _Measured:
    from annofree.experiments.measure import measure_runs

    made = {MADE: _make(plan, asked.out, asked)} if plan.make and asked.out is not None else {}
    asked.callbacks.on_stage("images", "loading models and images")
    figures = measure_runs(
        plan,
        limit=asked.limit,
        only=asked.only,
        made=asked.out,
        on_progress=asked.callbacks.on_progress,
        on_found=make_figure_writer(asked.out),
    )
    off = find_missed(MADE, plan.make.get("expected", {}), made.get(MADE, {}), plan.tolerance)
    compared = [] if asked.limit or asked.only else plan.runs
    off += [line for r in compared for line in find_missed(r.name, r.expected, figures[r.name], plan.tolerance)]
    return {**made, **figures}, off


def _make(plan: Recipe, out: Path, asked: _Request) -> Figures:
    """Make what a recipe needs before it measures, and return the figures of the stages."""
    from annofree.methods.components import resolve_device
    from annofree.pipelines.training.stages import read_making

    @contextmanager
    def show(what: str) -> Iterator[Callable[[int, int], None]]:
        asked.callbacks.on_stage(what, "")
        yield asked.callbacks.on_progress

    return read_making(plan.make).make(out, show, resolve_device(asked.device), asked.callbacks.on_note)
