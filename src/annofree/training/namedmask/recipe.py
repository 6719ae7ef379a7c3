"""What a training of NamedMask is told: a TOML file, every field of which is explained here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from annofree.detectors.deeplab.network import DeepLabConfig
from annofree.errors import InputError
from annofree.io.settings_file import check_names, check_type, check_values
from annofree.training.augment.copy_paste import CopyPasteSettings, read_copy_paste
from annofree.training.engine.recipe_checks import check_above_zero, check_shares, check_types
from annofree.training.engine.training_recipe import TrainingRecipe

__all__ = ["NamedMaskRecipe"]

_WORDS = ("backbone", "norm", "stride")  # which the network refuses itself
_NETWORK = tuple(f.name for f in fields(DeepLabConfig) if f.name != "names")


@dataclass(frozen=True)
class NamedMaskRecipe(TrainingRecipe):
    """A training of NamedMask; what is not given is as the paper's released code has it.

    Raises InputError for values of another type or out of range.
    """

    paths = ("archive", "out")
    beside = ("archive", "side")
    command = "annofree train namedmask"

    # the folder that `annofree retrieve` wrote and `annofree mask` put masks into; relative to the recipe's file
    archive: Path
    # the folder of the model, its log, checkpoint, curves and samples, relative to the recipe's file; a run stopped there is
    # resumed
    out: Path
    # weights of a ResNet to start from: a model by name, its folder or a file, relative to the recipe's; the paper takes DINO's
    # ResNet-50. "" for random ones
    initial: str = ""
    # names of the archive that are not learned
    exclude: tuple[str, ...] = ()
    # masks under it, by the estimate of the model that made them, are left out; 0 .. 1 (ours)
    min_quality: float = 0.0
    # masks of which the largest connected part has a smaller share are left out; 0 takes all (ours)
    min_part: float = 0.0
    # masks that cover a larger share of their image's border are left out; 1 takes all (ours)
    max_border: float = 1.0
    # fields of CopyPasteSettings, and variant, default or official, that they are changes of; one or two images a scene
    scenes: Mapping[str, Any] = field(default_factory=dict)
    # fields of DeepLabConfig but for its names
    network: Mapping[str, Any] = field(default_factory=dict)
    # steps in all
    steps: int = 20_000
    # scenes a step, over all processes
    batch: int = 16
    # learning rate of all but the ResNet
    lr: float = 5e-4
    # learning rate of the ResNet
    backbone_lr: float = 5e-5
    # of all weights, as Adam's L2 term
    weight_decay: float = 2e-4
    # exponent of the schedule, (1 - step / steps) ** power
    power: float = 0.9
    # below which no learning rate falls
    floor: float = 1e-6
    # ground truth and logits are compared at every so-many-th px, down and across; 1 as released, more is quicker (ours)
    stride: int = 1
    # bound on the gradient's norm; 0 for none, as released
    max_norm: float = 0.0
    # of the model's card
    name: str = "own-namedmask"
    # short side in px at which the network is best asked, 0 for any
    side: int = 0

    def __post_init__(self) -> None:
        for name in self.paths:
            check_type(name, getattr(self, name), Path)
            object.__setattr__(self, name, Path(getattr(self, name)))
        if isinstance(self.exclude, str):
            raise InputError(f"expected exclude as a list of names, got the text {self.exclude!r}; write [{self.exclude!r}]")
        object.__setattr__(self, "exclude", tuple(self.exclude))
        check_types(self)
        check_above_zero(self, ("steps", "batch", "lr", "stride", "log_every", "checkpoint_every"))
        check_shares(self, ("min_quality", "min_part", "max_border"))
        check_names("setting of [network]", self.network, _NETWORK)
        check_values(DeepLabConfig, {k: v for k, v in self.network.items() if k not in _WORDS}, "[network]")
        self.build_scene_settings()

    @classmethod
    def find_places(cls, folder: Path, held: Mapping[str, Any]) -> dict[str, Any]:
        """What it starts from, where it lies beside the recipe."""
        initial = held.get("initial")
        there = isinstance(initial, str) and initial and (folder / initial).exists()
        return {"initial": str(folder / str(initial))} if there else {}

    def build_scene_settings(self) -> CopyPasteSettings:
        """How scenes are made; raises InputError for settings that there are not."""
        return read_copy_paste({"images": (1, 2), **self.scenes})
