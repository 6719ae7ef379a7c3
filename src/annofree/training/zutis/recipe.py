"""What a training of ZUTIS is told: a TOML file, every field of which is explained here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.features.zutis_network import ZutisConfig
from annofree.io.settings_file import check_names, check_type, check_values
from annofree.training.augment.copy_paste import CopyPasteSettings, read_copy_paste
from annofree.training.engine.recipe_checks import check_above_zero, check_shares, check_types
from annofree.training.engine.training_recipe import TrainingRecipe

__all__ = ["ZutisRecipe"]

_NETWORK = (
    *("queries", "decoder_layers", "decoder_heads", "decoder_ffn", "mlp_hidden", "stop_gradient"),
    *("located_masks", "mean", "std"),
)


@dataclass(frozen=True)
class ZutisRecipe(TrainingRecipe):
    """A training of ZUTIS; what is not given is as the paper and its released code have it, for COCO's names.

    Raises InputError for values of another type or out of range.
    """

    paths = ("archive", "out")
    beside = ("archive", "clip", "side")
    added = ("pool", "ema")
    command = "annofree train zutis"

    # the folder that `annofree retrieve` wrote and `annofree mask` put masks into; relative to the recipe's file
    archive: Path
    # the CLIP whose ViT is trained further and whose text tower, frozen, names: a folder (relative to the recipe's file), the
    # name of a model such as openai-vit-b-16, or a preset, whose CLIP is taken
    clip: str
    # the folder of the model, its log, checkpoint, curves and samples, relative to the recipe's file; a run stopped there is
    # resumed
    out: Path
    # names of the archive that are held out, to be asked for later as unseen ones. Their images take no part, but for those
    # that another name retrieved, too
    exclude: tuple[str, ...] = ()
    # the word whose text feature stands for pixels that belong to nothing (released code)
    background: str = "background"
    # prompts of the names: a set by name, or a list; the released code takes bare names (name)
    templates: str | tuple[str, ...] = "name"
    # masks under it, by the estimate of the model that made them, are left out; 0 .. 1 (ours)
    min_quality: float = 0.0
    # masks of which the largest connected part has a smaller share are left out; 0 takes all (ours)
    min_part: float = 0.0
    # masks that cover a larger share of their image's border are left out; 1 takes all (ours)
    max_border: float = 1.0
    # fields of CopyPasteSettings, and variant, default or official, that they are changes of
    scenes: Mapping[str, Any] = field(default_factory=dict)
    # queries, decoder_layers, decoder_heads, decoder_ffn, mlp_hidden of the decoder, stop_gradient, located_masks, and mean and
    # std of pixels, as ZutisConfig explains them
    network: Mapping[str, Any] = field(default_factory=dict)
    # scenes that are drawn once, kept beside the archive and in the memory of the device (four bytes a px each), and seen
    # again, mirrored and turned; 0 draws each anew (ours)
    pool: int = 0
    # how much of itself the moving average of the weights, which is what is kept, keeps at each step; 0 for none (ours)
    ema: float = 0.0
    # steps in all
    steps: int = 20_000
    # scenes a step, over all processes
    batch: int = 8
    # learning rate of the decoder, its queries and the two small networks
    lr: float = 5e-5
    # learning rate of the ViT
    encoder_lr: float = 5e-6
    # of all weights
    weight_decay: float = 0.05
    # exponent of the schedule, (1 - step / steps) ** power
    power: float = 0.9
    # below which no learning rate falls
    floor: float = 1e-6
    # weight of the mask loss; under AdamW, and with stop_gradient, it hardly matters
    mask_weight: float = 1.0
    # weight of the cross-entropy to nothing of proposals that no object was matched to; 0 as in the paper, whose networks may
    # draw anything with these (ours)
    empty_weight: float = 0.0
    # what cosines are multiplied by in the cross-entropy; 1 as released, which is slow to tell names apart
    logit_scale: float = 1.0
    # ground truth and maps are compared at every so-many-th px, down and across; 1 as released, more is quicker (ours)
    stride: int = 1
    # bound on the gradient's norm; 0 for none, as released
    max_norm: float = 0.0
    # minutes over which the learning rates fall in the place of steps, for machines whose speed is not known beforehand: the
    # training ends with them, and steps are the most there can be; 0 for steps alone (ours)
    minutes: float = 0.0
    # of the model's card
    name: str = "own-zutis"
    # short side in px at which the network is best asked, 0 for any
    side: int = 0

    def __post_init__(self) -> None:
        for name in self.paths:
            check_type(name, getattr(self, name), Path)
            object.__setattr__(self, name, Path(getattr(self, name)))
        for name in ("exclude", "templates"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)
        if isinstance(self.exclude, str):
            raise InputError(f"expected exclude as a list of names, got the text {self.exclude!r}; write [{self.exclude!r}]")
        check_types(self)
        check_above_zero(self, ("steps", "batch", "lr", "logit_scale", "stride", "log_every", "checkpoint_every"))
        check_shares(self, ("min_quality", "min_part", "max_border"))
        check_names("setting of [network]", self.network, _NETWORK)
        check_values(ZutisConfig, self.network, "[network]")
        self.build_scene_settings()

    @classmethod
    def find_places(cls, folder: Path, held: Mapping[str, Any]) -> dict[str, Any]:
        """The CLIP, where it is a folder beside the recipe."""
        clip = held.get("clip")
        return {"clip": str(folder / clip)} if isinstance(clip, str) and (folder / clip).is_dir() else {}

    def build_scene_settings(self) -> CopyPasteSettings:
        """How scenes are made; raises InputError for settings that there are not."""
        return read_copy_paste(self.scenes)
