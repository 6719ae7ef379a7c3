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
from annofree.training.engine.recipe_checks import check_above_zero, check_types, read_fields

__all__ = ["OPTIMISERS", "WEIGHT_FILES", "DetectorRecipe"]

OPTIMISERS = ("sgd", "adamw")
WEIGHT_FILES = (".safetensors", ".pt", ".pth")
"""Endings of files of weights."""
_PATHS = ("labels", "images", "out")
_LISTS = {"names": str, "decay_at": int}
_NOT_OF_THE_CURVE = {
    *("labels", "images", "out", "initial", "name", "licence", "world", "tier"),
    *("log_every", "checkpoint_every", "sample_every", "workers", "tensorboard"),
}


@dataclass(frozen=True)
class DetectorRecipe:
    """A training of a detector; what is not given is as in Zip's self-training (Shi and Yang, ICLR 2024, A.3).

    Where things are; ``labels``, ``images`` and ``out`` are relative to the recipe's file:

    - ``labels``: a COCO file with masks, or the folder that ``annofree pseudo-label`` wrote.
    - ``images``: the folder that its file names count from; needed where the labels do not say.
    - ``out``: the folder of the detector, its log, checkpoint, curves and samples; a run stopped there goes on.
    - ``initial``: what it starts from: the folder of a detector, trained further; or weights of its ResNet, as a file
      (safetensors, or a state dict in a .pth), a model's folder (from the recipe's file) or a model's name, such as
      ``openai-rn50``; nothing for random ones.

    What is learned:

    - ``agnostic``: all names are one, "object".
    - ``names``: which of the labels' names, in which order; all of them where it is empty.  What has another name is not
      learned from, and counts as background.
    - ``fraction``: the share of the pictures, over 0 .. 1, that is chosen by ``split_seed``; a small one lies in a larger one.
    - ``[network]``: fields of ``DetectorConfig`` but for its names; where ``initial`` is a detector, changes of its own.
    - ``[scenes]``: fields of ``SceneSettings``: sizes, flips, crops and copy-paste.

    How it is learned:

    - ``steps`` of ``batch`` scenes each, over all processes.
    - ``optimiser``: ``sgd`` with ``momentum``, or ``adamw``, which networks of the DETR family want.
    - ``lr``, times ``backbone_rate`` for the ResNet, and times ``head_rate`` for the last layers, which give
      names, masks and boxes.
    - ``decay_at``: steps at which the rates are multiplied by ``gamma``; before that they rise in a straight line from
      ``warmup_factor`` of themselves over ``warmup`` steps.
    - ``weight_decay`` of all weights and biases, but ``norm_decay`` of those in norms, as detectron2 has it.
    - ``max_norm``: a bound on the gradient's norm over all weights together; 0 for none.
    - ``ema``: how much of itself a moving average of the weights keeps at each step; it is what is written then.  0 for none.
    - ``seed`` of the weights and the scenes.
    - ``bf16``: whether to compute in half precision; losses and weights stay in full.

    What is kept and shown:

    - ``name`` and ``licence`` of the model's card, and the ``world`` that its pictures show (photographs or emoji).
    - ``tier``: the supervision of labels or weights that do not tell theirs, S0 to S4; labels that tell nothing are taken to
      be a person's, S4.
    - ``log_every``, ``checkpoint_every`` and ``sample_every`` steps (0: no samples).
    - ``workers``: processes that make scenes ahead; 0 makes them in turn.
    - ``tensorboard``: whether to write curves for it, too; needs the package tensorboard.

    Raises InputError for values of another type or out of range.
    """

    labels: Path
    out: Path
    images: Path | None = None
    initial: str = ""
    agnostic: bool = False
    names: tuple[str, ...] = ()
    fraction: float = 1.0
    split_seed: int = 42
    network: Mapping[str, Any] = field(default_factory=dict)
    scenes: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 160_000
    batch: int = 16
    optimiser: str = "sgd"
    lr: float = 0.005
    backbone_rate: float = 1.0
    head_rate: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 5e-5
    norm_decay: float = 0.0
    decay_at: tuple[int, ...] = (80_000,)
    gamma: float = 0.2
    warmup: int = 1000
    warmup_factor: float = 0.001
    max_norm: float = 0.0
    ema: float = 0.0
    seed: int = 0
    bf16: bool = False
    name: str = "own-detector"
    licence: str = "unknown"
    world: str = "photographs"
    tier: str = ""
    log_every: int = 20
    checkpoint_every: int = 500
    sample_every: int = 0
    workers: int = 0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in _PATHS:
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
        self.scene_settings()

    @classmethod
    def read(cls, path: Path | None, **changes: Any) -> DetectorRecipe:
        """Read a recipe; ``changes`` are fields in the place of its own, or all of it where there is no file.

        Raises InputError when it is not there, not TOML, lacks a field or has one that there is not, with the nearest names.
        """
        held = {} if path is None else read_fields(path, cls, _PATHS)
        if path and (initial := held.get("initial")) and isinstance(initial, str) and _is_place(path.parent, initial):
            held["initial"] = str(path.parent / initial)
        check_names("field of the recipe", changes, [f.name for f in fields(cls)])
        held |= {name: value for name, value in changes.items() if value is not None}
        if lacking := [name for name in ("labels", "out") if name not in held]:
            where = f"the recipe {path}" if path else "the recipe"
            raise InputError(f"expected {', '.join(lacking)} in {where}, got none; see `annofree train detector --help`")
        return cls(**held)

    @property
    def schedule(self) -> Warmed:
        """The schedule of all learning rates."""
        return Warmed(Stairs(self.decay_at, self.gamma), self.warmup, self.warmup_factor)

    def lasting(self, steps: int) -> DetectorRecipe:
        """The same in another number of steps: the schedule is drawn out or pressed together with them."""
        scale = steps / self.steps
        return replace(
            self, steps=steps, decay_at=tuple(round(at * scale) for at in self.decay_at), warmup=round(self.warmup * scale)
        )

    def scene_settings(self) -> SceneSettings:
        """How scenes are made; raises InputError for settings that there are not."""
        check_names("setting of [scenes]", self.scenes, [f.name for f in fields(SceneSettings)])
        check_values(SceneSettings, self.scenes, "[scenes]")
        return SceneSettings(**self.scenes)

    def of_the_curve(self) -> dict[str, Any]:
        """The fields that shape what is learned."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NOT_OF_THE_CURVE}


def _is_place(folder: Path, initial: str) -> bool:
    """Whether what a training starts from is a path: there is something, or it looks like one rather than like a name."""
    path = Path(initial)
    return (folder / path).exists() or path.suffix in WEIGHT_FILES or (len(path.parts) > 1 and ":" not in initial)


def _listed(name: str, value: Any, kind: type) -> tuple[Any, ...]:
    """A list of TOML as a tuple; refuses a lone value, and values of another type."""
    if not isinstance(value, (list, tuple)) or not all(type(v) is kind for v in value):
        what = "names" if kind is str else "whole numbers"
        raise InputError(f"expected {name} as a list of {what}, got {value!r}")
    return tuple(value)
