"""Self-training in the emoji world: draw, let a method label, choose labels, train detectors, tune on a few of a person's.

Images are drawn with their truth.  That of the images that the method labels is read for the figures alone; that of others
stands for a person's labels, of which ``tune`` takes shares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annofree.datasets.emoji.world import CATEGORIES, SPLITS
from annofree.errors import InputError
from annofree.evaluation.accumulators import Figures
from annofree.evaluation.metrics.errors import find_mistakes
from annofree.evaluation.metrics.predictions import View
from annofree.formats.coco import CocoFile
from annofree.io.settings_file import check_names
from annofree.methods.build import MethodSpec
from annofree.pipelines.training.scene_stages import describe_stages, merge_settings, segment_scenes
from annofree.pipelines.training.scenes import Show, draw_scenes
from annofree.pipelines.training.side_by_side import train_side_by_side
from annofree.training.pseudo_labels.rules import LabelRules
from annofree.training.pseudo_labels.select import select_labels

__all__ = ["SelfTrainingMaking", "measure_labels"]


@dataclass(frozen=True)
class SelfTrainingMaking:
    """What is made, in this order: scenes, what a method finds of some or all names in them, the labels that rules leave, and
    detectors trained on these; then other scenes with their ground truth, and detectors tuned on shares of it.

    Raises InputError without a detector to train, and for a name that the scenes do not have.
    """

    # scenes of each split that the method labels
    scenes: int
    # a detector for each table, by name: fields of DetectorRecipe over those of common, in tables within them, too
    train: Mapping[str, Mapping[str, Any]]
    # fields of DetectorRecipe that all detectors share
    common: Mapping[str, Any] = field(default_factory=dict)
    # fields of LabelRules: which of the method's instances become labels
    rules: Mapping[str, Any] = field(default_factory=dict)
    # a detector for each table, by name, over the fields of common and of tuning; its initial may be a detector that was made
    # before, as made/NAME
    tune: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # fields of DetectorRecipe that all tuned detectors share
    tuning: Mapping[str, Any] = field(default_factory=dict)
    # other scenes of each split, whose ground truth stands for human annotations
    labelled: int = 0
    # height and width of scenes in px
    side: int = 256
    # of the scenes; the labeled ones have the next
    seed: int = 0
    # what the method is asked for; all names of the scenes where none are given.  A detector learns these alone
    names: tuple[str, ...] = ()
    # what finds the instances that become labels
    method: str = "zip"
    # the preset of its models
    models: str = "tiny"

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))  # a list in TOML
        check_names("name of the scenes", self.names, CATEGORIES.values())
        if not self.train:
            raise InputError("expected a detector to train in the recipe, as [make.train.NAME], got none")
        if self.tune and self.labelled < 1:
            raise InputError("expected labelled images in the recipe, as labelled = 100, for what is tuned; got none")

    def make(self, out: Path, show: Show, device: str = "cpu", say: Callable[[str], None] = print) -> Figures:
        """Make all of it in a folder, or go on where it stopped, and return the figures of the labels."""
        counts = dict.fromkeys(SPLITS, self.scenes)
        draw_scenes(out / "world", counts, self.side, self.seed, "images that nobody labeled", show)
        labels = out / "labels"
        if not (labels / "labels.json").exists():
            self._label(out, show, device)
        figures = measure_labels(labels / "labels.json", out / "world" / "truth.json")
        say("; ".join(f"{name} {value}" for name, value in figures.items()))
        if self.tune:
            counts = dict.fromkeys(SPLITS, self.labelled)
            draw_scenes(out / "labelled", counts, self.side, self.seed + 1, "images that a person labelled", show)
        given = {"labels": out / "labelled" / "truth.json", "images": out / "labelled" / "images"}
        tuned = merge_settings(self.common, {**given, **self.tuning})
        jobs = describe_stages(out, self.train, {**self.common, "labels": labels}) | describe_stages(out, self.tune, tuned)
        train_side_by_side(jobs, show, device, say)
        return figures

    def _label(self, out: Path, show: Show, device: str) -> None:
        """Ask the method, and choose labels among what it says."""
        finder = MethodSpec(self.method, models=self.models, device=device)
        segment_scenes(finder, out / "world" / "images", out / "run", show, self.names)
        with show("images whose labels are chosen") as shown:
            select_labels(out / "run", out / "labels", LabelRules.of(self.rules), on_progress=shown)


def measure_labels(labels: Path, truth: Path, view: View = "class-aware") -> Figures:
    """How many labels are right, at mask IoU 0.5 with a thing of their name, and how many things have one, in percent.

    In the view ``class-agnostic`` names do not count.
    """
    found, there = CocoFile.read(labels), CocoFile.read(truth)
    told, real = len(found.annotations), len(there.annotations)
    right = find_mistakes(there, found, view=view).right
    precision, recall = 100 * right / max(1, told), 100 * right / max(1, real)
    return {"labels": float(told), "label precision": round(precision, 2), "label recall": round(recall, 2)}
