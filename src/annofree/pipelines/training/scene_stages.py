"""Stages that trainings in the emoji world share: a method looks at the drawn scenes, a detector learns from labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from annofree.datasets.emoji.world import CATEGORIES
from annofree.detectors.config import OBJECT
from annofree.io.callbacks import Callbacks
from annofree.methods.build import MethodSpec
from annofree.pipelines.training.scenes import Show
from annofree.pipelines.training.side_by_side import TrainJob
from annofree.protocols import ClassAgnosticSegmenter
from annofree.runs.batch_encoder import BatchEncoder
from annofree.runs.config import RunConfig, size_chunks
from annofree.runs.inputs import find_source
from annofree.runs.run import Run
from annofree.runs.tasks import Tasks
from annofree.structures import Vocabulary
from annofree.training.detector.recipe import DetectorRecipe
from annofree.training.detector.train import fit_detector

__all__ = ["describe_stages", "merge_settings", "segment_scenes"]

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


def describe_stages(
    out: Path, stages: Mapping[str, Mapping[str, Any]], common: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, TrainJob]:
    """The detectors to train to ``out``/NAME by fields of ``DetectorRecipe`` over ``common``, but for those that are there.

    Their ``initial`` may be a detector that is made before in ``out``, as made/NAME.
    """
    jobs = dict[str, TrainJob]()
    for name, own in stages.items():
        if (out / name / "detector.json").exists():
            continue
        fields = {**merge_settings(common, own), "out": out / name, "name": name, "world": "emoji"}
        before = None
        if str(fields.get("initial", "")).startswith("made/"):
            before = fields["initial"].removeprefix("made/")
            fields["initial"] = str(out / before)
        jobs[name] = TrainJob(fit_detector, DetectorRecipe(**fields), before)
    return jobs


def merge_settings(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Lay fields over others; of a table within them, too, only what is named is replaced.

    >>> merge_settings({"lr": 1, "network": {"kind": "cascade", "fc": 8}}, {"network": {"kind": "mask_rcnn"}})
    {'lr': 1, 'network': {'kind': 'mask_rcnn', 'fc': 8}}
    """
    tables = {
        k: merge_settings(common[k], v) for k, v in own.items() if isinstance(v, Mapping) and isinstance(common.get(k), Mapping)
    }
    return {**common, **own, **tables}
