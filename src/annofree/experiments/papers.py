"""Recipes of published experiments: a paper's figures, the data they are of, and how to measure them again.

The data are not the project's to ship: a recipe says what has to be where in a folder of data sets, and refuses, with the
whole list, until it is there.  A run names a protocol, a method and models; figures that the paper states are ``expected``
where they can be compared, and ``quoted``, with a ``note`` that says why, where they cannot.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from annofree.errors import InputError, MissingError, build_unknown_error
from annofree.evaluation.accumulators import Figures, keep_agnostic, list_instance_figures, to_percent
from annofree.evaluation.metrics.corloc import compute_corloc
from annofree.evaluation.metrics.semantic import SemanticScores
from annofree.evaluation.predict_semantic import score_method
from annofree.evaluation.protocols.instance import INSTANCE_PROTOCOLS, find_instance_protocol
from annofree.evaluation.protocols.semantic import PROTOCOLS, find_semantic_protocol
from annofree.experiments.asking import IMAGES, add_seconds
from annofree.experiments.clusters import Cluster, name_by_clusters
from annofree.experiments.costs import PARAMETERS, count_parameters
from annofree.experiments.recipe_file import explain_recipe_errors, read_fields, read_tables
from annofree.experiments.run_steps import StepsOfRun, check_beside
from annofree.formats.coco import CocoFile
from annofree.hub.cards import hash_file
from annofree.io.settings_file import check_fields, check_type
from annofree.methods.build import OPENERS, MethodSpec, change_settings
from annofree.methods.components import Models
from annofree.methods.registry import find_method
from annofree.methods.steps.take import take_steps

__all__ = ["DATA_VARIABLE", "Place", "PublishedRecipe", "PublishedRun"]

DATA_VARIABLE = "ANNOFREE_DATA"
"""The environment variable that names the folder of data sets."""

Progress = Callable[[int, int], None]

_WHAT = "a recipe of a paper"
_PERHAPS = "images"  # of label maps: some data sets bring their own


@dataclass(frozen=True)
class Place:
    """A file or folder that the user supplies."""

    # in the folder of data sets
    path: str
    # what it is, in words
    what: str
    # of a file, where only one will do
    sha256: str = ""


@dataclass(frozen=True)
class PublishedRun(StepsOfRun):
    """One line of the paper's table."""

    # unique in the recipe
    name: str
    # rules of evaluation, by name
    protocol: str
    # name in the registry
    method: str = "zutis"
    # which of the method's named settings
    variant: str = "official"
    # replace those of the variant by name, nested ones too
    settings: Mapping[str, Any] = field(default_factory=dict)
    # a preset or a spec; else the recipe's
    models: str = ""
    # the place of a trained network that takes the place of theirs
    weights: str = ""
    # source of the foreground map, where a method, or the rank of its instances, takes one
    objectness: str = "none"
    # what comes after the method (``methods/steps/take.py``), such as ``{ name = { look = "box" } }`` for a class-agnostic one
    then: Mapping[str, Any] = field(default_factory=dict)
    # whose features name what a method without names finds: of a ``dino`` or of ``clip``, in clusters that the truth names, so
    # that class-aware figures say nothing of naming
    cluster: Cluster = ""
    # the name of another run: how many times as fast as that this one is, by the clock, is a figure
    beside: str = ""
    # of the data set, where it has several
    split: str | None = None
    # the paper's figures in percent by name, such as ``all AP50`` or ``all mIoU``, where they can be compared
    expected: Mapping[str, float] = field(default_factory=dict)
    # the paper's figures where they cannot
    quoted: Mapping[str, float] = field(default_factory=dict)
    # why they cannot
    note: str = ""


@dataclass(frozen=True)
class PublishedRecipe:
    """An experiment of a paper."""

    # what is measured, in a line
    title: str
    # where it was published
    paper: str
    # the world of the images
    world: str
    # the supervision of all that is used, and what that is
    tier: str
    # what the paper measured on
    hardware: str
    # how far a figure may be from the paper's, in points of percent
    tolerance: float
    # a preset or a spec, for all runs that name none
    models: str
    # how its networks come about
    command: str
    # what the user supplies, by name
    data: Mapping[str, Place]
    # the lines of the table
    runs: tuple[PublishedRun, ...]
    # the recipe's name, for messages
    file: str = ""

    @classmethod
    def read(cls, path: Path) -> PublishedRecipe:
        """Read a recipe; raises InputError when it is not there, not TOML, or has other fields or protocols than there are."""
        return cls.of(read_fields(path, _WHAT), path)

    @classmethod
    def of(cls, held: dict[str, Any], path: Path) -> PublishedRecipe:
        """Make a recipe of the fields that its file holds; raises InputError for other fields or protocols than there are."""
        with explain_recipe_errors(path, _WHAT):
            runs = tuple(_run(table) for table in read_tables(held.pop("run", []), "run"))
            check_type("data", data := held.pop("data", {}), Mapping[str, Mapping[str, Any]])
            places = {name: _place(name, table) for name, table in data.items()}
            check_fields(cls, {**held, "data": places, "runs": runs}, "a recipe", beside=("data", "runs"))
            recipe = cls(**held, data=places, runs=runs, file=path.name)
        recipe._check()
        return recipe

    def _check(self) -> None:
        names = [run.name for run in self.runs]
        if len(set(names)) < len(names) or not names:
            raise InputError(f"expected runs in {self.file}, each with a name of its own, got {names}")
        check_beside(
            self.runs, [run.name for run in self.runs if run.protocol in INSTANCE_PROTOCOLS], "runs of instances are timed"
        )
        for run in self.runs:
            if run.protocol not in (*PROTOCOLS, *INSTANCE_PROTOCOLS):
                raise build_unknown_error("protocol", run.protocol, (*PROTOCOLS, *INSTANCE_PROTOCOLS))
            free = () if run.protocol in INSTANCE_PROTOCOLS else (_PERHAPS,)
            lacking = [name for name in _needs(run) if name not in (*self.data, *free)]
            if lacking:
                raise InputError(f"expected the data of {run.name!r} in {self.file}, got no {', '.join(lacking)}")

    def locate_data(self, root: Path | None, only: Sequence[str] = ()) -> dict[str, Path]:
        """Return where the data of some runs are below ``root``, of all runs for none.

        Raises MissingError with all that is not there, or with all that is needed where there is no root; InputError for a
        file with another SHA-256 than the recipe says, and for a name that no run has.
        """
        wanted = {name for run in self.select_runs(only) for name in _needs(run)}
        data = {name: place for name, place in self.data.items() if name in wanted}
        if root is None:
            raise MissingError(
                f"expected a folder of data sets for {self.file}: pass --data DIR or set {DATA_VARIABLE}; in it are needed "
                f"{_listed(data.values())}"
            )
        missing = [place for place in data.values() if not (root / place.path).exists()]
        if missing:
            raise MissingError(f"{self.file} needs what is not in {root}: {_listed(missing)}")
        for place in data.values():
            if place.sha256 and hash_file(root / place.path) != place.sha256:
                raise InputError(f"expected {place.what} at {root / place.path}, but its SHA-256 is not {place.sha256[:12]}...")
        return {name: root / place.path for name, place in data.items()}

    def select_runs(self, only: Sequence[str]) -> list[PublishedRun]:
        """Return the runs of some names, all for none; raises InputError for a name that no run has."""
        known = {run.name: run for run in self.runs}
        for name in only:
            if name not in known:
                raise build_unknown_error("run", name, known)
        return [run for run in self.runs if not only or run.name in only]

    def measure(
        self,
        root: Path | None,
        *,
        device: str = "auto",
        limit: int | None = None,
        only: Sequence[str] = (),
        on_progress: Progress,
        on_run: Callable[[str], None] = lambda name: None,
        on_found: Callable[[str, CocoFile], None] = lambda name, found: None,
    ) -> dict[str, Figures]:
        """Run the recipe and return its figures by run, in percent; ``limit`` takes the first images only.

        ``on_run`` hears of each run before its models are loaded.  One image is in memory at a time.  Raises what
        ``locate_data`` does, before any model is loaded.
        """
        places, runs = self.locate_data(root, only), self.select_runs(only)
        for run in runs:
            run.check_steps("instance" if run.protocol in INSTANCE_PROTOCOLS else "semantic")
            change_settings(find_method(run.method, run.variant).variants.get(run.variant, run), run.settings)
        figures: dict[str, Figures] = {}
        seconds: dict[str, float] = {}
        for run in runs:
            on_run(run.name)
            method = self._method(run, places, device)
            if run.protocol in INSTANCE_PROTOCOLS:
                models = Models(run.models or self.models, device, objectness="none")
                figures[run.name], found, seconds[run.name] = _instances(run, method, models, places, limit, on_progress)
                on_found(run.name, found)
            else:
                figures[run.name], seconds[run.name] = _labels(run, method, places, limit, on_progress)
            figures[run.name][PARAMETERS] = count_parameters(method)
            if seconds[run.name] > 0:
                figures[run.name][IMAGES] = round(1 / seconds[run.name], 2)
        add_seconds(figures, seconds, 1, runs)
        return figures

    def _method(self, run: PublishedRun, places: Mapping[str, Path], device: str) -> Any:
        spec = MethodSpec(
            run.method, run.variant, run.models or self.models, device, settings=run.settings, objectness=run.objectness
        )
        if run.weights:
            role = next(role for role in spec.entry.list_roles(run.objectness) if role in OPENERS)
            spec = replace(spec, parts={role: places[run.weights]})
        models = Models(run.models or self.models, device, objectness=run.objectness)
        return take_steps(spec.build(models=models), run.steps, models, agnostic=run.agnostic)


def _run(table: Mapping[str, Any]) -> PublishedRun:
    check_fields(PublishedRun, table, f"the run {table.get('name', '')!r}")
    return PublishedRun(**table)


def _place(name: str, table: Mapping[str, Any]) -> Place:
    check_fields(Place, table, f"[data] {name}")
    return Place(**table)


def _needs(run: PublishedRun) -> tuple[str, ...]:
    """The names of the places that a run reads."""
    rules = INSTANCE_PROTOCOLS.get(run.protocol)
    return (*(rules.needs if rules else ("truth", _PERHAPS)), *((run.weights,) if run.weights else ()))


def _listed(places: Any) -> str:
    return "; ".join(f"{place.path} ({place.what})" for place in places)


def _instances(
    run: PublishedRun, method: Any, models: Models, places: Mapping[str, Path], limit: int | None, on_progress: Progress
) -> tuple[Figures, CocoFile, float]:
    """The figures of a run, what it found, and seconds an image by the clock, reading of images among them."""
    rules = find_instance_protocol(run.protocol)
    truth = rules.read_truth(places, run.split, limit)
    started = time.perf_counter()
    found = rules.predict(method, truth, places, on_progress)
    seconds, folder = (time.perf_counter() - started) / max(1, len(truth.images)), places[rules.images[0]] / rules.images[1]
    if run.cluster:
        found = name_by_clusters(rules.select_counted(truth), found, folder, models, run.cluster)
    figures: Figures = {}
    for view, scores in rules.compute_scores(truth, found).items():
        figures |= {
            f"all {'' if view == 'class-aware' else f'{view} '}{name}": v for name, v in list_instance_figures(scores).items()
        }
    for group, scores in rules.group_scores(truth, found).items():
        figures |= {f"{group} {name}": v for name, v in list_instance_figures(scores).items()}
    if run.agnostic and not run.cluster:
        figures = keep_agnostic(figures)
    if run.agnostic:
        corloc = compute_corloc(rules.select_counted(truth), found).value
        figures["all class-agnostic CorLoc"] = to_percent(corloc)
    return figures, found, seconds


def _labels(
    run: PublishedRun, method: Any, places: Mapping[str, Path], limit: int | None, on_progress: Progress
) -> tuple[Figures, float]:
    """The figures of a run, and seconds an image by the clock, reading of images and of the truth among them."""
    rules = find_semantic_protocol(run.protocol)
    dataset = rules.open_dataset(places["truth"], places.get("images"), run.split)
    if limit is not None:
        dataset = replace(dataset, samples=dataset.samples[:limit])
    started = time.perf_counter()
    scores = score_method(method, dataset, rules, on_progress).scores
    seconds = (time.perf_counter() - started) / max(1, len(dataset.samples))
    return _of_labels(scores, (*run.expected, *run.quoted)), seconds


def _of_labels(scores: SemanticScores, wanted: Collection[str] = ()) -> Figures:
    """Means over classes; the IoU of each class that is wanted; of one beside the background also that averaged over images."""
    values = {"mIoU": scores.mean_iou, "mIoU of things": scores.mean_iou_things, "pixel accuracy": scores.pixel_accuracy}
    values |= {f"mIoU of size {size}": value for size, value in scores.by_size.items()}
    if len(scores.iou) == 2:
        (thing,) = (name for name in scores.iou if name != "background")
        values |= {f"IoU of {thing}": scores.iou[thing], f"IoU of {thing} per image": scores.iou_per_image[thing]}
    values |= {f"IoU of {name}": value for name, value in scores.iou.items() if f"all IoU of {name}" in wanted}
    return {f"all {name}": to_percent(value) for name, value in values.items()}
