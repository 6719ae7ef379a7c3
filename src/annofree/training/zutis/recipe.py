"""What a training of ZUTIS is told: a TOML file, every field of which is explained here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from annofree.errors import InputError, unknown_name
from annofree.features.zutis_network import ZutisConfig
from annofree.io.settings_file import check_names, check_type, check_values
from annofree.training.augment.copy_paste import VARIANTS, CopyPasteSettings
from annofree.training.engine.recipe_checks import check_above_zero, check_types, read_fields

__all__ = ["ZutisRecipe"]

_NETWORK = ("queries", "decoder_layers", "decoder_heads", "decoder_ffn", "mlp_hidden", "stop_gradient", "mean", "std")
_PATHS = ("archive", "out")
_NOT_OF_THE_CURVE = {
    *("archive", "clip", "out", "name", "licence", "world", "side"),
    *("log_every", "checkpoint_every", "sample_every", "workers", "tensorboard"),
}


@dataclass(frozen=True)
class ZutisRecipe:
    """A training of ZUTIS; what is not given is as the paper and its released code have it, for COCO's names.

    Where things are; ``archive`` and ``out`` are relative to the recipe's file:

    - ``archive``: the folder that ``annofree retrieve`` wrote and ``annofree mask`` put masks into.
    - ``clip``: the CLIP whose ViT is trained further and whose text tower, frozen, names: a folder (from the recipe's file),
      the name of a model such as ``openai-vit-b-16``, or a preset, whose CLIP is taken.
    - ``out``: the folder of the model, its log, checkpoint, curves and samples; a run stopped there goes on.

    What is learned:

    - ``exclude``: names of the archive that are held out, to be asked for later as unseen ones.  Their pictures take no part,
      but for those that another name retrieved, too.
    - ``background``: the word whose text feature stands for pixels that belong to nothing.
    - ``templates``: prompts of the names: a set by name, or a list.  The released code takes bare names (``name``).
    - ``min_quality``: masks under it, by the estimate of the model that made them, are left out; 0 .. 1.
    - ``[scenes]``: fields of ``CopyPasteSettings``, and ``variant``, default or official, that they are changes of.
    - ``[network]``: the ``queries``, ``decoder_layers``, ``decoder_heads``, ``decoder_ffn``, ``mlp_hidden`` of the decoder,
      ``stop_gradient``, and ``mean`` and ``std`` of pixels, as ``ZutisConfig`` explains them.

    How it is learned:

    - ``steps`` of ``batch`` scenes each, over all processes.
    - ``lr`` of the decoder, its queries and the two small networks, ``encoder_lr`` of the ViT, ``weight_decay`` of all.
    - ``power`` of the schedule, (1 - step / steps) ** power, and ``floor``, below which no learning rate falls.
    - ``mask_weight``: of the mask loss; under AdamW, and with ``stop_gradient``, it hardly matters.
    - ``logit_scale``: what cosines are multiplied by in the cross-entropy; 1 as released, which is slow to tell names apart.
    - ``stride``: truth and maps are compared at every so-many-th px, down and across; 1 as released, more is quicker.
    - ``max_norm``: a bound on the gradient's norm; 0 for none, as released.
    - ``seed`` of the weights and the scenes.
    - ``bf16``: whether to compute in half precision; losses and weights stay in full.

    What is kept and shown:

    - ``name`` and ``licence`` of the model's card, the ``world`` that its pictures show (photographs or emoji), and ``side``,
      the short side in px at which the network is best asked, 0 for any.
    - ``log_every``, ``checkpoint_every`` and ``sample_every`` steps (0: no samples).
    - ``workers``: processes that make scenes ahead; 0 makes them in turn.
    - ``tensorboard``: whether to write curves for it, too; needs the package tensorboard.

    Raises InputError for values of another type or out of range.
    """

    archive: Path
    clip: str
    out: Path
    exclude: tuple[str, ...] = ()
    background: str = "background"
    templates: str | tuple[str, ...] = "name"
    min_quality: float = 0.0
    scenes: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 20_000
    batch: int = 8
    lr: float = 5e-5
    encoder_lr: float = 5e-6
    weight_decay: float = 0.05
    power: float = 0.9
    floor: float = 1e-6
    mask_weight: float = 1.0
    logit_scale: float = 1.0
    stride: int = 1
    max_norm: float = 0.0
    seed: int = 0
    bf16: bool = False
    name: str = "own-zutis"
    licence: str = "unknown"
    world: str = "photographs"
    side: int = 0
    log_every: int = 20
    checkpoint_every: int = 500
    sample_every: int = 0
    workers: int = 0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in _PATHS:
            check_type(name, getattr(self, name), Path)
            object.__setattr__(self, name, Path(getattr(self, name)))
        for name in ("exclude", "templates"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)
        if isinstance(self.exclude, str):
            raise InputError(f"expected exclude as a list of names, got the text {self.exclude!r}; write [{self.exclude!r}]")
        check_types(self)
        check_above_zero(self, ("steps", "batch", "lr", "logit_scale", "stride", "log_every", "checkpoint_every"))
        check_names("setting of [network]", self.network, _NETWORK)
        check_values(ZutisConfig, self.network, "[network]")
        self.scene_settings()

    @classmethod
    def read(cls, path: Path | None, **changes: Any) -> ZutisRecipe:
        """Read a recipe; ``changes`` are fields in the place of its own, or all of it where there is no file.

        Raises InputError when it is not there, not TOML, lacks a field or has one that there is not, with the nearest names.
        """
        held = {} if path is None else read_fields(path, cls, _PATHS)
        if path and isinstance(clip := held.get("clip"), str) and (path.parent / clip).is_dir():
            held["clip"] = str(path.parent / clip)
        check_names("field of the recipe", changes, [f.name for f in fields(cls)])
        held |= {name: value for name, value in changes.items() if value is not None}
        if lacking := [name for name in ("archive", "clip", "out") if name not in held]:
            where = f"the recipe {path}" if path else "the recipe"
            raise InputError(f"expected {', '.join(lacking)} in {where}, got none; see `annofree train zutis --help`")
        return cls(**held)

    def scene_settings(self) -> CopyPasteSettings:
        """How scenes are made; raises InputError for settings that there are not."""
        held = dict(self.scenes)
        variant = held.pop("variant", "default")
        if variant not in VARIANTS:
            raise unknown_name("variant of [scenes]", str(variant), VARIANTS)
        check_names("setting of [scenes]", held, [*(f.name for f in fields(CopyPasteSettings)), "variant"])
        check_values(CopyPasteSettings, held, "[scenes]")
        return replace(VARIANTS[variant], **held)

    def of_the_curve(self) -> dict[str, Any]:
        """The fields that shape what is learned."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NOT_OF_THE_CURVE}
