"""What a training of a detector is told: a TOML file, every field of which is explained here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from annofree.detectors.config import DetectorConfig
from annofree.errors import InputError
from annofree.hub.cards import TIERS
from annofree.io.settings_file import check_names, check_type, check_values
from annofree.training.augment.detection_scenes import SceneSettings
from annofree.training.engine.lr_schedules import Stairs, Warmed
from annofree.training.engine.recipe_checks import check_above_zero, check_types
from annofree.training.engine.training_recipe import TrainingRecipe

__all__ = ["OPTIMISERS", "DetectorRecipe", "is_place"]

OPTIMISERS = ("sgd", "adamw")
_WEIGHT_FILES = (".safetensors", ".pt", ".pth")
"""Endings of files of weights."""
_LISTS = {"names": str, "decay_at": int}


@dataclass(frozen=True)
class DetectorRecipe(TrainingRecipe):
    """A training of a detector; what is not given is as in Zip's self-training (Shi and Yang, ICLR 2024, A.3).

    Raises InputError for values of another type or out of range.
    """

    paths = ("labels", "images", "out")
    beside = ("labels", "images", "initial", "tier")
    added = ("score_weights",)
    command = "annofree train detector"

    # a COCO file with masks, or the folder that `annofree pseudo-label` wrote; relative to the recipe's file
    labels: Path
    # the folder of the detector, its log, checkpoint, curves and samples, relative to the recipe's file; a run stopped there is
    # resumed
    out: Path
    # the folder that the file names of the labels count from, relative to the recipe's file; needed where the labels do not say
    images: Path | None = None
    # what it starts from: the folder of a detector, trained further; or weights of its ResNet, as a file (safetensors, or a
    # state dict in a .pth), a model's folder (relative to the recipe's file) or a model's name, such as openai-rn50; nothing
    # for random ones
    initial: str = ""
    # whether all names are one, "object"
    agnostic: bool = False
    # which of the labels' names, in which order; all of them where it is empty. What has another name is not learned from, and
    # counts as background
    names: tuple[str, ...] = ()
    # share of the images that is learned from, over 0 .. 1
    fraction: float = 1.0
    # seed by which that share is chosen; a small share lies in a larger one
    split_seed: int = 42
    # fields of DetectorConfig but for its names; where initial is a detector, changes of its own
    network: Mapping[str, Any] = field(default_factory=dict)
    # fields of SceneSettings: sizes, flips, crops and copy-paste
    scenes: Mapping[str, Any] = field(default_factory=dict)
    # steps in all
    steps: int = 160_000
    # scenes a step, over all processes
    batch: int = 16
    # sgd with momentum, or adamw, which networks of the DETR family want
    optimiser: str = "sgd"
    # learning rate
    lr: float = 0.005
    # what it is multiplied by for the ResNet
    backbone_rate: float = 1.0
    # what it is multiplied by for the last layers, which give names, masks and boxes
    head_rate: float = 1.0
    # of sgd (detectron2)
    momentum: float = 0.9
    # of all weights and biases, but those in norms
    weight_decay: float = 5e-5
    # weight decay of those in norms (detectron2)
    norm_decay: float = 0.0
    # steps at which the learning rates are multiplied by gamma
    decay_at: tuple[int, ...] = (80_000,)
    # what they are multiplied by there
    gamma: float = 0.2
    # steps in which the learning rates rise in a straight line (detectron2)
    warmup: int = 1000
    # what they rise from, as a part of themselves (detectron2)
    warmup_factor: float = 0.001
    # bound on the gradient's norm over all weights together; 0 for none
    max_norm: float = 0.0
    # how much of itself a moving average of the weights keeps at each step; the average is what is written then. 0 for none
    # (ours)
    ema: float = 0.0
    # power of a label's score by which its losses in the heads of a cascade are multiplied, over the mean of that over all
    # labels, so that they weigh as much as before together; 0 weighs all alike, as a person's labels, whose score is 1, always
    # do (ours)
    score_weights: float = 0.0
    # of the model's card
    name: str = "own-detector"
    # supervision of labels or weights that do not tell theirs, S0 to S4; labels that tell nothing are taken to be a person's,
    # S4
    tier: str = ""

    def __post_init__(self) -> None:
        for name in self.paths:
            value = getattr(self, name)
            check_type(name, value, Path | None)
            object.__setattr__(self, name, None if value is None else Path(value))
        for name, kind in _LISTS.items():
            object.__setattr__(self, name, _listed(name, getattr(self, name), kind))
        check_types(self)
        check_above_zero(self, ("steps", "batch", "lr", "log_every", "checkpoint_every", "fraction"))
        check_names("optimiser", [self.optimiser], OPTIMISERS)
        check_names("tier", [self.tier] if self.tier else [], TIERS)
        for name in ("fraction", "momentum", "warmup_factor", "ema"):
            if getattr(self, name) > 1:
                raise InputError(f"expected {name} up to 1, got {getattr(self, name)}")
        known = [f.name for f in fields(DetectorConfig) if f.name != "names"]
        check_names("setting of [network]", self.network, known)
        check_values(DetectorConfig, self.network, "[network]")
        self.build_scene_settings()

    @classmethod
    def find_places(cls, folder: Path, held: Mapping[str, Any]) -> dict[str, Any]:
        """What it starts from, where that is a path rather than a name."""
        initial = held.get("initial")
        there = isinstance(initial, str) and initial and is_place(folder, initial)
        return {"initial": str(folder / str(initial))} if there else {}

    @property
    def schedule(self) -> Warmed:
        """The schedule of all learning rates."""
        return Warmed(Stairs(self.decay_at, self.gamma), self.warmup, self.warmup_factor)

    def rescaled(self, steps: int) -> DetectorRecipe:
        """The same in another number of steps: the schedule is drawn out or pressed together with them."""
        scale = steps / self.steps
        return replace(
            self, steps=steps, decay_at=tuple(round(at * scale) for at in self.decay_at), warmup=round(self.warmup * scale)
        )

    def build_scene_settings(self) -> SceneSettings:
        """How scenes are made; raises InputError for settings that there are not."""
        check_names("setting of [scenes]", self.scenes, [f.name for f in fields(SceneSettings)])
        check_values(SceneSettings, self.scenes, "[scenes]")
        return SceneSettings(**self.scenes)


def is_place(folder: Path, initial: str) -> bool:
    """Whether what a training starts from is a path in a folder: there is something, or it looks like one, not like a name.

    >>> is_place(Path(), "weights.safetensors"), is_place(Path(), "tiny-detector"), is_place(Path(), "hf:owner/name")
    (True, False, False)
    """
    path = Path(initial)
    return (folder / path).exists() or path.suffix in _WEIGHT_FILES or (len(path.parts) > 1 and ":" not in initial)


def _listed(name: str, value: Any, kind: type) -> tuple[Any, ...]:
    """A list of TOML as a tuple; refuses a lone value, and values of another type."""
    if not isinstance(value, (list, tuple)) or not all(type(v) is kind for v in value):
        what = "names" if kind is str else "whole numbers"
        raise InputError(f"expected {name} as a list of {what}, got {value!r}")
    return tuple(value)
