"""Stages that trainings in the emoji world share: a method looks at the drawn scenes, a detector learns from labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from annofree.datasets.emoji.world import CATEGORIES
from annofree.detectors.config import OBJECT
from annofree.io.callbacks import Callbacks
from annofree.methods.build import MethodSpec
from annofree.pipelines.training.scenes import Show
from annofree.protocols import ClassAgnosticSegmenter
from annofree.runs.batch_encoder import BatchEncoder
from annofree.runs.config import RunConfig, size_chunks
from annofree.runs.inputs import find_source
from annofree.runs.run import Run
from annofree.runs.tasks import Tasks
from annofree.structures import Vocabulary
from annofree.training.detector.recipe import DetectorRecipe
from annofree.training.detector.train import fit_detector

__all__ = ["merge_settings", "segment_scenes", "train_stage"]

_BATCH = 4


def segment_scenes(spec: MethodSpec, images: Path, out: Path, show: Show, asked: Sequence[str] = ()) -> None:
    """Write a run of what a method finds in a folder of scenes: of the names asked, all of them for none, or without names.

    A stopped one goes on.
    """
    method, source = spec.build(), find_source([images], out)
    tasks = Tasks(("instance",), method)
    everything = list(asked) or list(CATEGORIES.values())
    names = Vocabulary.of(OBJECT if isinstance(method, ClassAgnosticSegmenter) else everything)
    settings = {"method": spec.method, "models": spec.models}
    request = RunConfig(out, list(source.list_ids()), source.root, names, settings, stretch=size_chunks(_BATCH), overlays=False)
    with show("images labeled") as shown:
        run = Run(request, Callbacks(on_progress=shown))
        if not run.check():
            feed = BatchEncoder(tasks, _BATCH, os.cpu_count() or 2)
            run.execute(tasks, feed, {"settings": settings, "provenance": tasks.provenance})


def train_stage(
    out: Path, name: str, fields: Mapping[str, Any], show: Show, device: str, say: Callable[[str], None] = print
) -> None:
    """Train a detector to ``out``/``name`` by fields of ``DetectorRecipe``, unless it is there.

    Its ``initial`` may be a detector that was made before in ``out``, as made/NAME.
    """
    if (out / name / "detector.json").exists():
        return
    fields = {**fields, "out": out / name, "name": name, "world": "emoji"}
    if str(fields.get("initial", "")).startswith("made/"):
        fields["initial"] = str(out / fields["initial"].removeprefix("made/"))
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
