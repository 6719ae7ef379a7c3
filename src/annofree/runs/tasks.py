"""Several tasks in one run: each method encodes an image once, and every task asks that."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from annofree.detections.nms import Overlaps
from annofree.detections.panoptic import PanopticMap, PanopticSettings, merge_panoptic
from annofree.errors import InputError
from annofree.protocols import Segmenter, SemanticSegmenter
from annofree.runs.batch_encoder import synchronize
from annofree.runs.clock import Timed, skip_timing
from annofree.runs.encodings import list_kinds
from annofree.structures import Detections, Image, LabelMap, Vocabulary

__all__ = ["Prediction", "Tasks", "TasksInfo"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What was found in one image; None for what was not asked for, and all of it where the image failed."""

    # the instances, most confident first
    detections: Detections | None = None
    # a name for every pixel
    label_map: LabelMap | None = None
    # both joined
    panoptic: PanopticMap | None = None
    # the image's path below the common folder, or the name of an image in memory
    id: str = ""
    # why the image failed
    error: str | None = None


@dataclass(frozen=True)
class Tasks:
    """What is asked of each image, and whom: ``instances`` finds things, ``semantic`` names pixels; they may be one.

    ``wanted`` are some of TASKS; ``stuff`` the stuff classes of panoptic maps; ``overlaps`` says
    which of two instances that overlap stays, before anything is made of them.  Raises InputError if no method
    can do a task.
    """

    wanted: tuple[str, ...]
    instances: Segmenter | None = None
    semantic: SemanticSegmenter | None = None
    stuff: Collection[str] = ()
    policy: PanopticSettings = field(default_factory=PanopticSettings)
    overlaps: Overlaps = field(default_factory=Overlaps)

    def __post_init__(self) -> None:
        for task in self.wanted:
            if (task != "semantic" and self.instances is None) or (task != "instance" and self.semantic is None):
                raise InputError(f"expected a method for the task {task}, got none")

    @property
    def methods(self) -> list[Any]:
        """The methods, each once."""
        both = [method for method in (self.instances, self.semantic) if method is not None]
        return both[:1] if len(both) == 2 and both[0] is both[1] else both

    @property
    def provenance(self) -> dict[str, Any]:
        """That of the method, or of both."""
        said = [method.provenance for method in self.methods]
        return said[0] if len(said) == 1 else {"methods": said}

    @property
    def encoding_key(self) -> list[str]:
        """Runs with equal keys have the same encodings: models, and all class-independent settings."""
        return [f"{_key(method)}, {_models(method)}" for method in self.methods]

    @property
    def encoding_kinds(self) -> dict[str, type]:
        """The classes of the methods' encodings, by name."""
        return {name: kind for method in self.methods for name, kind in list_kinds(method).items()}

    def remarks(self, classes: Any) -> list[str]:
        """Warnings about the results."""
        return list(dict.fromkeys(remark for method in self.methods for remark in method.remarks(classes)))

    def count_new_texts(self, classes: Any) -> int:
        """How many texts have to be encoded first, and are kept from then on."""
        return max((m.count_new_texts(classes) for m in self.methods if hasattr(m, "count_new_texts")), default=0)

    def encode(self, images: Sequence[Image]) -> list[tuple[Any, ...]]:
        """One encoding of each method an image, in order."""
        return list(zip(*(method.encode(images) for method in self.methods), strict=True))

    def predict(self, encoding: tuple[Any, ...], vocabulary: Vocabulary, timed: Timed = skip_timing) -> Prediction:
        """Do all that is wanted for one image; ``timed`` counts the seconds of each task."""
        found, labels, joined = None, None, None
        if self.instances is not None:
            with timed("instances"):
                found = synchronize(self.overlaps.apply(self.instances.instances(encoding[0], vocabulary)))
        if self.semantic is not None:
            with timed("semantic"):
                labels = synchronize(self.semantic.semantic(encoding[-1], vocabulary))
        if "panoptic" in self.wanted and found is not None and labels is not None:
            with timed("panoptic"):
                joined = merge_panoptic(found, labels, self.policy, stuff=self.stuff)
        return Prediction(found if "instance" in self.wanted else None, labels if "semantic" in self.wanted else None, joined)


@dataclass(frozen=True)
class TasksInfo:
    """What a run has to know of tasks that are loaded elsewhere."""

    provenance: dict[str, Any]
    encoding_key: list[str]
    remarks: list[str]
    # of kept encodings, by name
    encoding_kinds: dict[str, type]


def _key(method: Any) -> str:
    """The method's own key if it has one, since most settings do not affect encodings."""
    return repr(getattr(method, "encoding_key", method.provenance))


def _models(method: Any) -> str:
    return json.dumps(method.provenance.get("models", []), sort_keys=True)
