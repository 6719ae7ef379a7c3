"""CutLER in the emoji world: draw, let MaskCut label, train, let the detector label, merge, train again.

Images are drawn with their truth, which is read for the figures of the labels alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from annofree.datasets.emoji.world import Split
from annofree.errors import InputError
from annofree.evaluation.accumulators import Figures
from annofree.io.settings_file import check_names
from annofree.methods.build import MethodSpec
from annofree.pipelines.training.scene_stages import describe_stages, segment_scenes
from annofree.pipelines.training.scenes import Show, draw_scenes
from annofree.pipelines.training.self_training import measure_labels
from annofree.pipelines.training.side_by_side import train_side_by_side
from annofree.training.pseudo_labels.rules import LabelRules
from annofree.training.pseudo_labels.select import select_labels

__all__ = ["CutlerMaking"]


@dataclass(frozen=True)
class CutlerMaking:
    """What is made, in this order: scenes, and in each round labels and a detector, round-1 and on.

    Labels of the first round are what a method without names finds; those of a later one are what the detector before is sure
    of, and of the labels before those that it does not overlap.  Raises InputError without a round.
    """

    # scenes by split, such as single, an object each, as most of ImageNet has it
    scenes: Mapping[str, int]
    # a table a round: fields of DetectorRecipe over those of common, and ``rules`` over those of all rounds; a round goes on
    # from the detector before unless it has its own initial
    rounds: Sequence[Mapping[str, Any]]
    # fields of DetectorRecipe that all rounds share
    common: Mapping[str, Any] = field(default_factory=dict)
    # fields of LabelRules that all rounds share; their ``earlier`` is the IoU from which an earlier label gives way
    rules: Mapping[str, Any] = field(default_factory=dict)
    # height and width of scenes in px
    side: int = 256
    # of the scenes
    seed: int = 0
    # what finds the labels of the first round
    method: str = "maskcut"
    # which of its named settings
    variant: str = "default"
    # replace those of the variant by name, nested ones too
    settings: Mapping[str, Any] = field(default_factory=dict)
    # the preset of its models
    models: str = "tiny"

    def __post_init__(self) -> None:
        if not self.rounds:
            raise InputError("expected a round in the recipe, as [[make.rounds]], got none")
        check_names("split", self.scenes, get_args(Split))

    def make(self, out: Path, show: Show, device: str = "cpu", say: Callable[[str], None] = print) -> Figures:
        """Make all of it in a folder, or go on where it stopped, and return the figures of the labels."""
        counts = cast(Mapping[Split, int], self.scenes)
        draw_scenes(out / "world", counts, self.side, self.seed, "images that nobody labeled", show)
        finder = MethodSpec(self.method, self.variant, self.models, device, settings=self.settings)
        figures: Figures = {}
        for number, table in enumerate(self.rounds, 1):
            labels = out / f"labels-{number}"
            if not (labels / "labels.json").exists():
                self._label(out, number, finder, show)
            held = measure_labels(labels / "labels.json", out / "world" / "truth.json", view="class-agnostic")
            figures |= {f"round {number} {name}": value for name, value in held.items()}
            say("; ".join(f"{name} {value}" for name, value in held.items()))
            own = {**({"initial": f"made/round-{number - 1}"} if number > 1 else {}), **table, "labels": labels}
            own.pop("rules", None)
            train_side_by_side(describe_stages(out, {f"round-{number}": own}, self.common), show, device, say)
            finder = MethodSpec(str(out / f"round-{number}"), "all", self.models, device)
        return figures

    def _label(self, out: Path, number: int, finder: MethodSpec, show: Show) -> None:
        """Find the things of all scenes, and make labels of them and of those of the round before."""
        rules = LabelRules.of({"agnostic": True, **self.rules, **self.rounds[number - 1].get("rules", {})})
        segment_scenes(finder, out / "world" / "images", out / f"run-{number}", show)
        before = out / f"labels-{number - 1}" if number > 1 else None
        with show("images whose labels are chosen") as shown:
            select_labels(out / f"run-{number}", out / f"labels-{number}", rules, earlier=before, on_progress=shown)
