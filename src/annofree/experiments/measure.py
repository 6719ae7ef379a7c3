"""Recipes: experiments with the numbers they are expected to give, in one TOML file each.

A recipe names the truth, the images, the models, and runs: a method, a variant, changed settings, a control.  All runs
look at an image before the next one is opened, so that they share what does not differ between them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

from annofree.datasets.benchmarks.class_agnostic import merge_categories
from annofree.datasets.benchmarks.coco_object import open_coco_instances
from annofree.datasets.benchmarks.unseen import keep_categories as only_of
from annofree.errors import InputError, build_unknown_error
from annofree.evaluation.accumulators import (
    Accumulator,
    BoundaryAccumulator,
    Figures,
    InstanceAccumulator,
    LabelMapAccumulator,
    compute_figures,
    score_apart,
)
from annofree.evaluation.predict_instances import read_truth_images
from annofree.experiments.asking import ASKED, add_seconds
from annofree.experiments.banks import collect_banks
from annofree.experiments.clusters import Cluster, name_by_clusters
from annofree.experiments.costs import PARAMETERS, Ledger, count_parameters
from annofree.experiments.recipe_file import explain_recipe_errors, read_fields, read_tables
from annofree.experiments.run_steps import StepsOfRun, check_beside
from annofree.experiments.shared_models import memoize_per_image
from annofree.features.controls import Control
from annofree.formats.coco import CocoFile
from annofree.hub.presets import ROLES
from annofree.io.settings_file import check_fields, check_names
from annofree.methods.build import OPENERS, MethodSpec
from annofree.methods.components import Models
from annofree.methods.registry import find_method, find_objectness_roles
from annofree.methods.steps.take import Steps, take_steps
from annofree.protocols import ClassAgnosticSegmenter
from annofree.structures import Vocabulary

__all__ = ["Figures", "Recipe", "Run", "compute_figures", "measure_runs"]

_MADE = "made/"
_PARTS = ("clip", "boundaries", "zutis", "detector", "namedmask", "archive")


@dataclass(frozen=True)
class Run(StepsOfRun):
    """One line of a recipe: what is run, and what is expected of it."""

    # unique in the recipe
    name: str
    # name in the registry
    method: str = "zip"
    # which of the method's named settings
    variant: str = "default"
    # replace those of the variant by name, nested ones too
    settings: Mapping[str, Any] = field(default_factory=dict)
    # what takes the place of CLIP's boundary features
    control: str | None = None
    # instance, semantic, or boundary: where the edges of what is clustered lie, of the masks where nothing is
    task: str = "instance"
    # source of the foreground map, where a method takes one
    objectness: str = "found"
    # figures in percent by name, such as ``plain AP``
    expected: Mapping[str, float] = field(default_factory=dict)
    # other models than the recipe's, by role: ``clip`` by the name of its card, ``zutis`` and ``detector`` by the name
    # of theirs or as ``made/NAME``, the folder of what the recipe made first; ``namedmask`` and ``archive`` by that alone
    parts: Mapping[str, str] = field(default_factory=dict)
    # class names that are asked and scored, of instances alone; all names of the truth where none are given
    names: tuple[str, ...] = ()
    # which instances are scored: all, the preset's answer, or changes of that policy
    policy: str | Mapping[str, Any] = "all"
    # whether a bank of all images shares in names and scores (``detections/bank.py``): no image is asked before all are seen
    bank: bool = False
    # what comes after the method (``methods/steps/take.py``), such as ``{ name = { look = "box" } }`` for a class-agnostic one
    then: Mapping[str, Any] = field(default_factory=dict)
    # whose features name what a method without names finds: of a ``dino`` or of ``clip``, in clusters that the truth names, so
    # that class-aware figures say nothing of naming
    cluster: Cluster = ""
    # whether it shares nothing with others, so that its processor seconds an image are its own to the last
    timed: bool = False
    # the name of a timed run: how many times as fast as that this one is, is a figure
    beside: str = ""


@dataclass(frozen=True)
class Recipe:
    """An experiment; paths are relative to its file."""

    # what is measured, in a line
    title: str
    # the world of the images: emoji, COCO, ...
    world: str
    # the supervision of all that is used, and what that is
    tier: str
    # what the figures were measured on
    hardware: str
    # that it takes there
    minutes: float
    # how far a figure may be from what is expected, in points of percent
    tolerance: float
    # COCO instances
    truth: Path
    # the folder of its images
    images: Path
    # a preset, or names of models joined by +
    models: str
    # the field of an image that names its group
    group_by: str
    # what is compared
    runs: tuple[Run, ...]
    # class names that are scored apart from all others of the truth, as ``novel AP50`` and ``base AP50``, of instances alone
    novel: tuple[str, ...] = ()
    # the first N images of each group only
    limit: int | None = None
    # what has to be made before, and which of its figures are ``expected``
    make: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a recipe; raises InputError when it is not there, not TOML, or has other fields than a recipe has."""
        return cls.of(read_fields(path), path)

    @classmethod
    def of(cls, held: dict[str, Any], path: Path) -> Recipe:
        """Make a recipe of the fields that its file holds; raises InputError for other fields than a recipe has."""
        with explain_recipe_errors(path):
            runs = tuple(_run(table) for table in read_tables(held.pop("run", []), "run"))
            check_fields(cls, {**held, "runs": runs}, "a recipe", beside=("runs",))
            _check_names([run.name for run in runs], path)
            check_beside(runs, [run.name for run in runs if run.timed], "put timed = true")
            places = {key: path.parent / held[key] for key in ("truth", "images")}
            return cls(**{**held, **places, "novel": tuple(held.get("novel", ()))}, runs=runs)


def _run(table: Mapping[str, Any]) -> Run:
    check_fields(Run, table, f"the run {table.get('name', '')!r}")
    return Run(**{**table, "names": tuple(table.get("names", ()))})


def _check_names(names: Sequence[str], path: Path) -> None:
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise InputError(f"expected each run of {path} to have a name of its own, got {', '.join(map(repr, doubled))} twice")


def measure_runs(
    recipe: Recipe,
    *,
    limit: int | None = None,
    only: Sequence[str] = (),
    made: Path | None = None,
    on_progress: Callable[[int, int], None],
    on_found: Callable[[str, CocoFile], None] = lambda name, found: None,
) -> dict[str, Figures]:
    """Run a recipe and return its figures by run, in percent.

    ``limit`` takes the first images of each group only, ``only`` some runs; ``made`` is the folder of models that were made
    for it.
    """
    known = [run.name for run in recipe.runs]
    for name in only:
        if name not in known:
            raise build_unknown_error("run", name, known)
    whole = CocoFile.read(recipe.truth)
    check_names(f"novel name in {recipe.truth}", recipe.novel, [row["name"] for row in whole.categories])
    truth = _limited(whole, recipe.group_by, limit or recipe.limit)
    runs = [run for run in recipe.runs if not only or run.name in only]
    ledger = Ledger()
    methods = _methods(recipe, runs, Vocabulary.of([row["name"] for row in truth.categories]), made, ledger)
    truths = {run.name: _asked(truth, run, methods[run.name]) for run in runs}
    vocabularies = {name: Vocabulary.of([row["name"] for row in t.categories]) for name, t in truths.items()}
    ids = [row["id"] for row in whole.images]
    answers = {run.name: _answers(recipe, run, methods[run.name], truths[run.name], ids) for run in runs}
    images = {row["id"]: row for row in truth.images}
    pictures = read_truth_images(truth, recipe.images)
    methods |= collect_banks(recipe.models, [run for run in runs if run.bank], methods, vocabularies, [p for _, p in pictures])
    seconds = dict.fromkeys(answers, 0.0)
    for done, (image_id, image) in enumerate(pictures):
        on_progress(done, len(pictures))
        encodings: dict[Any, tuple[Any, float]] = {}
        for run in runs:
            method, started = methods[run.name], ledger.now
            parts = tuple(sorted(run.parts.items()))
            key = (run.control, run.objectness, parts, getattr(method, "encoding_key", run.name), run.timed and run.name)
            if key in encodings:
                ledger.add(encodings[key][1])
            else:
                encodings[key] = ledger.measure(partial(method.encode, [image]))
            answer = ASKED[run.task](method, encodings[key][0][0], vocabularies[run.name], image)
            seconds[run.name] += ledger.now - started
            answers[run.name].add(images[image_id], answer)
    on_progress(len(pictures), len(pictures))
    for run in runs:
        gathered = answers[run.name]
        if isinstance(gathered, InstanceAccumulator):
            if run.cluster:
                models = Models(recipe.models, "cpu", objectness="none")
                gathered.found = name_by_clusters(truths[run.name], gathered.found, recipe.images, models, run.cluster)
            on_found(run.name, gathered.found)
    figures = {name: gathered.compute_figures() for name, gathered in answers.items()}
    for name, gathered in answers.items():
        if recipe.novel and isinstance(gathered, InstanceAccumulator):
            figures[name] |= score_apart(truths[name], gathered.found, recipe.novel)
    add_seconds(figures, seconds, len(pictures), runs)
    for name, method in methods.items():
        figures[name][PARAMETERS] = count_parameters(method)
    return figures


def _asked(truth: CocoFile, run: Run, method: Any) -> CocoFile:
    """The truth of the names that a run is asked for: those that it lists, all, or one, object, for a method without names."""
    if not isinstance(method, ClassAgnosticSegmenter):
        return only_of(truth, run.names) if run.names else truth
    return merge_categories(truth)


def _answers(recipe: Recipe, run: Run, method: Any, truth: CocoFile, ids: Sequence[int]) -> Accumulator:
    """Start to gather what a run says of the images of ``truth``; ``ids`` are those of the whole file."""
    if run.task == "semantic":
        return LabelMapAccumulator(ids, open_coco_instances(recipe.truth, recipe.images), recipe.group_by)
    if run.task == "boundary":
        return BoundaryAccumulator(truth, recipe.group_by)
    nameless = run.agnostic or isinstance(method, ClassAgnosticSegmenter)  # by its method, or by the detector that it has
    return InstanceAccumulator(truth, recipe.group_by, nameless and not run.cluster)


def _limited(truth: CocoFile, group_by: str, limit: int | None) -> CocoFile:
    if limit is None:
        return truth
    seen: dict[str, int] = {}
    kept = []
    for row in truth.images:
        group = str(row.get(group_by, "all"))
        seen[group] = seen.get(group, 0) + 1
        kept += [row] if seen[group] <= limit else []
    ids = {row["id"] for row in kept}
    return CocoFile(kept, truth.categories, [a for a in truth.annotations if a["image_id"] in ids], truth.info)


def _methods(recipe: Recipe, runs: Sequence[Run], vocabulary: Vocabulary, made: Path | None, ledger: Ledger) -> dict[str, Any]:
    """Build the method of each run; the models are shared, so that each looks at an image once; ``ledger`` counts that."""
    models = Models(recipe.models, "cpu", objectness="none")
    kept: dict[tuple[str, ...], Any] = {}

    def share(make: Callable[[], Any], *how: str) -> Any:
        if how not in kept:
            kept[how] = memoize_per_image(make(), ledger)
        return kept[how]

    for run in runs:
        _check(run)
    return {run.name: _build(recipe, run, vocabulary, models, made, None if run.timed else share) for run in runs}


def _build(
    recipe: Recipe, run: Run, vocabulary: Vocabulary, models: Models, made: Path | None, share: Callable[..., Any] | None
) -> Any:
    """The method of a run with what comes after it, of shared parts where there is a way to share."""
    spec, steps = _spec(recipe, run, made), run.steps
    make: Callable[[], Any] = partial(spec.build, vocabulary, models, share)
    if share is not None and (steps != Steps() or run.agnostic):
        # rows that differ in their steps alone see an image once
        method = share(
            make, "method", run.method, run.variant, repr(run.settings), repr(run.parts), run.control, run.objectness
        )
    else:
        method = make()
    if steps == Steps() and not run.agnostic:
        return method
    parts = models.with_parts(source=run.objectness) if steps.rank != "own" else models
    if share is not None:
        roles = ["sam", *(["clip"] if steps.name is not None else []), *(["objectness"] if steps.rank != "own" else [])]
        keys = {
            "sam": ("sam", ""),
            "clip": ("clip", " "),
            "objectness": ("objectness", run.objectness, run.parts.get("detector", "")),
        }
        parts = parts.with_parts(**{role: share(partial(getattr, parts, role), *keys[role]) for role in roles})
    return take_steps(method, steps, parts, agnostic=run.agnostic)


def _spec(recipe: Recipe, run: Run, made: Path | None) -> MethodSpec:
    return MethodSpec(
        run.method,
        run.variant,
        recipe.models,
        "cpu",
        settings=run.settings,
        objectness=run.objectness,
        parts={role: _part(run, role, name, made) for role, name in run.parts.items()},
        control=cast(Control | None, run.control),
        policy=run.policy,
    )


def _part(run: Run, role: str, name: str, made: Path | None) -> str | Path:
    """The name of a card, or the folder of what the recipe made before."""
    if not name.startswith(_MADE) and role in ROLES:
        return name
    if made is None or role not in OPENERS or not name.startswith(_MADE):
        what = ", ".join(OPENERS)
        raise InputError(
            f"expected of {_MADE}... one of {what} that was made before the run {run.name!r}, got {dict(run.parts)}"
        )
    return made / name.removeprefix(_MADE)


def _check(run: Run) -> None:
    """Refuse what does not exist before any model is loaded."""
    if run.control and run.control not in get_args(Control):
        raise build_unknown_error("control", run.control, get_args(Control))
    find_objectness_roles(run.objectness)
    if run.names and run.task != "instance":
        raise InputError(f"expected names of a run of instances alone, got them in {run.name!r}, whose task is {run.task}")
    if strange := set(run.parts) - set(_PARTS):
        raise build_unknown_error(f"part in the run {run.name!r}", min(strange), _PARTS)
    run.check_steps(run.task)
    run.check_bank()
    tasks: tuple[str, ...] = (*find_method(run.method, run.variant).tasks, *(("instance",) if run.steps.regions else ()))
    tasks += ("boundary",) if "instance" in tasks else ()
    if run.task not in tasks:
        raise InputError(f"expected a task that {run.method} has ({', '.join(tasks)}), got {run.task!r}")
