"""Self-training in the emoji world: draw, let a method label, choose labels, train detectors, tune on a few of a person's.

Images are drawn with their truth.  That of the images that the method labels is read for the figures alone; that of others
stands for a person's labels, of which ``tune`` takes shares.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annofree.datasets.emoji.world import CATEGORIES, SPLITS
from annofree.errors import InputError
from annofree.evaluation.accumulators import Figures
from annofree.evaluation.metrics.errors import find_mistakes
from annofree.formats.coco import CocoFile
from annofree.io.callbacks import Callbacks
from annofree.methods.build import MethodSpec
from annofree.pipelines.training.scenes import Show, draw_scenes
from annofree.runs.batch_encoder import BatchEncoder
from annofree.runs.config import RunConfig, size_chunks
from annofree.runs.inputs import find_source
from annofree.runs.run import Run
from annofree.runs.tasks import Tasks
from annofree.structures import Vocabulary
from annofree.training.detector.recipe import DetectorRecipe
from annofree.training.detector.train import fit_detector
from annofree.training.pseudo_labels.rules import LabelRules
from annofree.training.pseudo_labels.select import select_labels

__all__ = ["SelfTrainingMaking", "measure_labels"]

_BATCH = 4


@dataclass(frozen=True)
class SelfTrainingMaking:
    """What is made, in this order: scenes, what a method finds of all names in them, the labels that rules leave, and detectors
    trained on these; then other scenes with their ground truth, and detectors tuned on shares of it.

    Raises InputError without a detector to train.
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
    # what finds the instances that become labels
    method: str = "zip"
    # the preset of its models
    models: str = "tiny"

    def __post_init__(self) -> None:
        if not self.train:
            raise InputError("expected a detector to train in the recipe, as [make.train.NAME], got none")
        if self.tune and self.labelled < 1:
            raise InputError("expected labelled pictures in the recipe, as labelled = 100, for what is tuned; got none")

    def make(self, out: Path, show: Show, device: str = "cpu", say: Callable[[str], None] = print) -> Figures:
        """Make all of it in a folder, or go on where it stopped, and return the figures of the labels."""
        counts = dict.fromkeys(SPLITS, self.scenes)
        draw_scenes(out / "world", counts, self.side, self.seed, "pictures that nobody labelled", show)
        labels = out / "labels"
        if not (labels / "labels.json").exists():
            self._label(out, show, device)
        figures = measure_labels(labels / "labels.json", out / "world" / "truth.json")
        say("; ".join(f"{name} {value}" for name, value in figures.items()))
        for name, own in self.train.items():
            self._train(out, name, {"labels": labels, **own}, show, device, say)
        if self.tune:
            counts = dict.fromkeys(SPLITS, self.labelled)
            draw_scenes(out / "labelled", counts, self.side, self.seed + 1, "pictures that a person labelled", show)
        given = {"labels": out / "labelled" / "truth.json", "images": out / "labelled" / "images"}
        for name, own in self.tune.items():
            self._train(out, name, merge_settings({**given, **self.tuning}, own), show, device, say)
        return figures

    def _label(self, out: Path, show: Show, device: str) -> None:
        """Ask the method, and choose labels among what it says."""
        method, source = (
            MethodSpec(self.method, models=self.models, device=device).build(),
            find_source([out / "world" / "images"], out / "run"),
        )
        tasks, names = Tasks(("instance",), method), Vocabulary.of(list(CATEGORIES.values()))
        settings = {"method": self.method, "models": self.models}
        request = RunConfig(
            out / "run", list(source.list_ids()), source.root, names, settings, stretch=size_chunks(_BATCH), overlays=False
        )
        with show("pictures labelled") as shown:
            run = Run(request, Callbacks(on_progress=shown))
            if not run.check():
                run.execute(
                    tasks,
                    BatchEncoder(tasks, _BATCH, os.cpu_count() or 2),
                    {"settings": settings, "provenance": tasks.provenance},
                )
        with show("pictures whose labels are chosen") as shown:
            select_labels(out / "run", out / "labels", LabelRules.of(self.rules), on_progress=shown)

    def _train(self, out: Path, name: str, own: Mapping[str, Any], show: Show, device: str, say: Callable[[str], None]) -> None:
        fields = {**merge_settings(self.common, own), "out": out / name, "name": name, "world": "emoji"}
        if str(fields.get("initial", "")).startswith("made/"):
            fields["initial"] = str(out / fields["initial"].removeprefix("made/"))
        if (out / name / "detector.json").exists():
            return
        with show(f"steps of {name}") as shown:
            fit_detector(DetectorRecipe(**fields), device=device, on_progress=shown, say=say)


def merge_settings(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Lay fields over others; of a table within them, too, only what is named is replaced.

    >>> merge_settings({"lr": 1, "network": {"kind": "cascade", "fc": 8}}, {"network": {"kind": "mask_rcnn"}})
    {'lr': 1, 'network': {'kind': 'mask_rcnn', 'fc': 8}}
    """
    tables = {
        k: merge_settings(common[k], v) for k, v in own.items() if isinstance(v, Mapping) and isinstance(common.get(k), Mapping)
    }
    return {**common, **own, **tables}


def measure_labels(labels: Path, truth: Path) -> Figures:
    """How many labels are right, at mask IoU 0.5 with a thing of their name, and how many things have one, in percent."""
    found, there = CocoFile.read(labels), CocoFile.read(truth)
    told, real, right = len(found.annotations), len(there.annotations), find_mistakes(there, found).right
    precision, recall = 100 * right / max(1, told), 100 * right / max(1, real)
    return {"labels": float(told), "label precision": round(precision, 2), "label recall": round(recall, 2)}
