"""Recipes: experiments with the numbers they are expected to give, in one TOML file each.

A recipe names the truth, the pictures, the models, and runs: a method, a variant, changed settings, a control.  All runs
look at a picture before the next one is opened, so that they share what does not differ between them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from annofree.datasets.coco_object import coco_instances
from annofree.errors import InputError, unknown_name
from annofree.evaluation.answers import Answers, Figures, InstanceAnswers, LabelAnswers, figures_of
from annofree.evaluation.running import truth_images
from annofree.evaluation.sharing import shared
from annofree.features.controls import Control, controlled
from annofree.formats.coco import CocoFile
from annofree.methods.catalogue import Models, build, entry_of
from annofree.methods.models import OBJECTNESS_ROLES
from annofree.structures import Vocabulary

__all__ = ["Figures", "Recipe", "Run", "figures_of", "reproduce"]


@dataclass(frozen=True)
class Run:
    """One line of a recipe: what is run, and ``expected`` figures in percent by name, such as ``plain AP``.

    ``control`` replaces CLIP's boundary features; ``task`` is instance or semantic; ``objectness`` where a method asks for it.
    """

    name: str
    method: str = "zip"
    variant: str = "default"
    settings: Mapping[str, Any] = field(default_factory=dict)
    control: str | None = None
    task: str = "instance"
    objectness: str = "found"
    expected: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """An experiment: paths are relative to its file; ``tolerance`` in points of percent; ``limit`` pictures a group."""

    title: str
    world: str
    tier: str
    hardware: str
    minutes: float
    tolerance: float
    truth: Path
    images: Path
    models: str
    group_by: str
    runs: tuple[Run, ...]
    limit: int | None = None

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a recipe; raises InputError when it is not there, not TOML, or has other fields than a recipe has."""
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
            runs = tuple(Run(**run) for run in data.pop("run", []))
            here = path.parent
            places = {key: here / data.pop(key) for key in ("truth", "images")}
            _check_names([run.name for run in runs], path)
            return cls(**data, **places, runs=runs)
        except OSError as problem:
            raise InputError(f"expected a recipe at {path}, but it cannot be read: {problem.strerror}") from None
        except (ValueError, KeyError, TypeError) as problem:  # not UTF-8 and not TOML are both a ValueError
            raise InputError(f"expected a recipe in {path}, but it is not one: {problem}") from None


def _check_names(names: Sequence[str], path: Path) -> None:
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise InputError(f"expected each run of {path} to have a name of its own, got {', '.join(map(repr, doubled))} twice")


def reproduce(
    recipe: Recipe,
    *,
    limit: int | None = None,
    only: Sequence[str] = (),
    on_progress: Callable[[int, int], None],
    on_found: Callable[[str, CocoFile], None] = lambda name, found: None,
) -> dict[str, Figures]:
    """Run a recipe and return its figures by run, in percent.

    ``limit`` takes the first pictures of each group only, ``only`` some runs.
    """
    known = [run.name for run in recipe.runs]
    for name in only:
        if name not in known:
            raise unknown_name("run", name, known)
    whole = CocoFile.read(recipe.truth)
    truth = _limited(whole, recipe.group_by, limit or recipe.limit)
    runs = [run for run in recipe.runs if not only or run.name in only]
    vocabulary = Vocabulary.of([row["name"] for row in truth.categories])
    methods = _methods(recipe, runs, vocabulary)
    answers = {run.name: _answers(recipe, run, truth, [row["id"] for row in whole.images]) for run in runs}
    images = {row["id"]: row for row in truth.images}
    pictures = truth_images(truth, recipe.images)
    for done, (image_id, image) in enumerate(pictures):
        on_progress(done, len(pictures))
        encodings: dict[Any, Any] = {}
        for run in runs:
            method = methods[run.name]
            key = (run.control, run.objectness, getattr(method, "encoding_key", run.name))
            if key not in encodings:
                encodings[key] = method.encode([image])[0]
            ask = method.semantic if run.task == "semantic" else method.instances
            answers[run.name].add(images[image_id], ask(encodings[key], vocabulary))
    on_progress(len(pictures), len(pictures))
    for name, answer in answers.items():
        if isinstance(answer, InstanceAnswers):
            on_found(name, answer.found)
    return {name: answer.figures() for name, answer in answers.items()}


def _answers(recipe: Recipe, run: Run, truth: CocoFile, ids: Sequence[int]) -> Answers:
    """Start to gather what a run says of the pictures of ``truth``; ``ids`` are those of the whole file."""
    if run.task == "semantic":
        return LabelAnswers(ids, coco_instances(recipe.truth, recipe.images), recipe.group_by)
    return InstanceAnswers(truth, recipe.group_by)


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


def _methods(recipe: Recipe, runs: Sequence[Run], vocabulary: Vocabulary) -> dict[str, Any]:
    """Build the method of each run; the models are shared, so that each looks at a picture once."""
    models = Models(recipe.models, "cpu", objectness="none")
    parts: dict[tuple[str, str], Any] = {}

    def once(part: str, how: str, make: Callable[[], Any]) -> Any:
        if (part, how) not in parts:
            parts[part, how] = shared(make())
        return parts[part, how]

    def equipped(run: Run) -> Models:
        entry = entry_of(run.method, run.variant)
        having = {"clip": once("clip", run.control or "", lambda: _controlled(models.clip, run.control))}
        if "sam" in entry.needs:
            having["sam"] = once("sam", "", lambda: models.sam)
        if entry.objectness and run.objectness != "none":
            having["objectness"] = once("objectness", run.objectness, lambda: _objectness(models, run.objectness, vocabulary))
        return models.having(**having)

    for run in runs:
        _check(run)
    return {run.name: build(run.method, equipped(run), run.variant, run.settings) for run in runs}


def _check(run: Run) -> None:
    """Refuse what does not exist before any model is loaded."""
    if run.control and run.control not in get_args(Control):
        raise unknown_name("control", run.control, get_args(Control))
    if run.objectness not in OBJECTNESS_ROLES:
        raise unknown_name("objectness source", run.objectness, OBJECTNESS_ROLES)
    tasks = entry_of(run.method, run.variant).tasks
    if run.task not in tasks:
        raise InputError(f"expected a task that {run.method} has ({', '.join(tasks)}), got {run.task!r}")


def _controlled(clip: Any, control: str | None) -> Any:
    return controlled(clip, cast(Control, control)) if control else clip


def _objectness(models: Models, source: str, vocabulary: Vocabulary) -> Any:
    """A source of objectness; ``instances`` asks Zip for the names of the truth."""
    asked = {"segmenter": build("zip", models), "classes": vocabulary} if source == "instances" else {}
    return models.having(source=source, **asked).objectness
