"""Recipes: experiments with the numbers they are expected to give, in one TOML file each.

A recipe names the truth, the pictures, the models, and runs: a method, a variant, changed settings, a control.  All runs
look at a picture before the next one is opened, so that they share what does not differ between them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from annofree.errors import InputError, unknown_name
from annofree.evaluation.instance import InstanceScores
from annofree.evaluation.running import scores_of, truth_images
from annofree.evaluation.separation import Separation
from annofree.evaluation.sharing import SharedClip, SharedSam
from annofree.features.controls import Control, controlled
from annofree.formats.coco import CocoFile
from annofree.methods.catalogue import build, load_models
from annofree.protocols import Segmenter
from annofree.structures import Vocabulary

__all__ = ["Figures", "Recipe", "Run", "figures_of", "reproduce"]

Figures = dict[str, float | None]


@dataclass(frozen=True)
class Run:
    """One line of a recipe: what is run, and ``expected`` figures in percent by name, such as ``plain AP``."""

    name: str
    method: str = "zip"
    variant: str = "default"
    settings: Mapping[str, Any] = field(default_factory=dict)
    control: str | None = None
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
            return cls(**data, **places, runs=runs)
        except OSError as problem:
            raise InputError(f"expected a recipe at {path}, but it cannot be read: {problem.strerror}") from None
        except (ValueError, KeyError, TypeError) as problem:  # not UTF-8 and not TOML are both a ValueError
            raise InputError(f"expected a recipe in {path}, but it is not one: {problem}") from None


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
    truth = _limited(CocoFile.read(recipe.truth), recipe.group_by, limit or recipe.limit)
    runs = [run for run in recipe.runs if not only or run.name in only]
    methods = _methods(recipe, runs)
    vocabulary = Vocabulary.of([row["name"] for row in truth.categories])
    ids = [row["id"] for row in truth.categories]
    found = {run.name: CocoFile(images=truth.images, categories=truth.categories) for run in runs}
    images = truth_images(truth, recipe.images)
    for done, (image_id, image) in enumerate(images):
        on_progress(done, len(images))
        encodings: dict[Any, Any] = {}
        for run in runs:
            method, key = methods[run.name], (run.control, getattr(methods[run.name], "encoding_key", run.name))
            if key not in encodings:
                encodings[key] = method.encode([image])[0]
            found[run.name].add_annotations(method.instances(encodings[key], vocabulary).to_coco(image_id, ids))
    on_progress(len(images), len(images))
    for name, file in found.items():
        on_found(name, file)
    return {name: figures_of(truth, file, recipe.group_by) for name, file in found.items()}


def figures_of(truth: CocoFile, found: CocoFile, group_by: str) -> Figures:
    """Score predictions for each group of pictures and for all of them, in percent, by names such as ``plain AP``."""
    groups: dict[str, list[int]] = {}
    for row in truth.images:
        groups.setdefault(str(row.get(group_by, "all")), []).append(row["id"])
    groups["all"] = [row["id"] for row in truth.images]
    figures: Figures = {}
    for group, image_ids in groups.items():
        for view, scores in scores_of(truth, found, image_ids).items():
            figures |= {f"{group} {name}": value for name, value in _named(view, scores).items()}
    return figures


def _named(view: str, scores: InstanceScores | Separation) -> Figures:
    prefix = {"class-aware masks": "", "class-aware separation": "", "class-aware boxes": "box "}.get(
        view, f"{view.replace(' masks', '').replace(' separation', '')} "
    )
    if isinstance(scores, Separation):
        return {f"{prefix}separated": _percent(scores.rate)}
    values = {"AP": scores.ap, "AP50": scores.ap50, "AP75": scores.ap75, "AR10": scores.ar10, "AR100": scores.ar100}
    return {f"{prefix}{name}": _percent(value) for name, value in values.items()}


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 2)


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


def _methods(recipe: Recipe, runs: Sequence[Run]) -> dict[str, Segmenter]:
    clip, sam = load_models(recipe.models, "cpu")
    shared_sam, clips = SharedSam(sam), dict[str | None, SharedClip]({None: SharedClip(clip)})
    for run in runs:
        if run.control and run.control not in get_args(Control):
            raise unknown_name("control", run.control, get_args(Control))
        if run.control not in clips:
            clips[run.control] = SharedClip(controlled(clip, run.control))  # type: ignore[arg-type]
    return {run.name: build(run.method, clips[run.control], shared_sam, run.variant, run.settings) for run in runs}
