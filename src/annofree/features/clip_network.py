"""Model folders in open_clip's layout to open_clip models, strictly, and one way to read their two kinds of image towers.

A folder holds ``open_clip_config.json`` and ``open_clip_model.safetensors``, as in the repositories of the Hugging Face hub.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP, CustomTextCLIP, convert_to_custom_text_state_dict, convert_weights_to_lp
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from annofree.errors import InputError, MissingError
from annofree.features.preprocessing import Resample
from annofree.features.tokenizer import Tokenizer
from annofree.features.towers.perception import PERCEPTION, PerceptionTower
from annofree.features.towers.positions import PositionRule
from annofree.features.towers.resnet import ResNetTower
from annofree.features.towers.text import encode_text_tokens
from annofree.features.towers.transformers_vit import SiglipTower, TipsTower
from annofree.features.towers.vit import VitTower
from annofree.hub.cards import PICKLES
from annofree.io.tensors import refuse_nan
from annofree.ops.linear import replace_linear_layers

__all__ = ["CONFIG", "DTYPES", "WEIGHTS", "LoadedClip", "TextTokenizer", "Tower", "load_clip", "wrap_tower"]

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

Tower = ResNetTower | VitTower | TipsTower | SiglipTower | PerceptionTower
"""Any tower; what a kind of tower cannot do raises InputError, naming what can."""

_FOREIGN = ("hf_model_name", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs")


class TextTokenizer(Protocol):
    """Turns texts into token ids (B, T)."""

    @property
    def size(self) -> int:
        """The vocabulary size."""
        ...

    def is_unknown(self, text: str) -> bool:
        """Whether the text has a token outside the vocabulary."""
        ...

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Token ids (B, T) of B texts."""
        ...


@dataclass(frozen=True, eq=False)
class LoadedClip:
    """A vision-language model for reading only."""

    # the network of open_clip or transformers
    model: Any
    # its image tower
    tower: Tower
    # mean (3) of its pixels
    mean: Tensor
    # standard deviation (3) of its pixels
    std: Tensor
    # texts to token ids
    tokenizer: TextTokenizer
    # token ids (B, T) to text features (B, D), not normalized
    encode_tokens: Callable[[Tensor], Tensor]
    # what cosines are multiplied by before a softmax
    scale: float
    # how images are resized
    resample: Resample = "bicubic"


def load_clip(
    folder: Path,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    quick_gelu: bool | None = None,
    positions: PositionRule | None = None,
) -> LoadedClip:
    """Build the open_clip model of a folder's configuration and load its weights strictly.

    The image tower runs in ``dtype``, its norms and the text tower, whose work is kept, in float32.  ``quick_gelu`` says
    which activation the weights were trained with and wins over the configuration, which is often wrong about it; with the
    other one every feature is quietly a little off.

    Raises MissingError without the files, InputError for pickled weights, for a configuration that is none or asks for
    towers from other libraries, and for weights that do not fit it.
    """
    if dtype not in DTYPES:
        raise InputError(f"expected a dtype among {', '.join(map(str, DTYPES))}, got {dtype}")
    weights, config = _weights(folder), _config(folder)
    settings = dict(config["model_cfg"])
    if quick_gelu is not None:
        settings["quick_gelu"] = quick_gelu
    model = _built(settings, dtype, folder)
    _fill(model, weights)
    model = model.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
    if dtype != torch.float32:
        _halve(model.visual, dtype)
    replace_linear_layers(model)
    mean, std = _statistics(config, device)
    tokenizer = _tokenizer(folder, int(settings["text_cfg"].get("context_length", 77)))
    scale = float(model.logit_scale.exp())
    tower, texts = wrap_tower(model.visual, positions), partial(encode_text_tokens, model)
    resample: Resample = "bilinear" if isinstance(tower, PerceptionTower) else "bicubic"
    return LoadedClip(model, tower, mean, std, tokenizer, texts, scale, resample)


def _halve(visual: nn.Module, dtype: torch.dtype) -> None:
    """Let an image tower compute in half precision; open_clip's own keep their norms in float32."""
    if isinstance(visual, TimmModel):
        visual.to(dtype)
    else:
        convert_weights_to_lp(visual, dtype)


def _tokenizer(folder: Path, context_length: int) -> Tokenizer:
    """CLIP's tokenizer, reduced to vocabulary.json where there is one."""
    path = folder / "vocabulary.json"
    return Tokenizer(context_length, json.loads(path.read_text(encoding="utf-8")) if path.exists() else None)


def wrap_tower(visual: nn.Module, positions: PositionRule | None = None) -> Tower:
    """Wrap the image tower of an open_clip model; raises InputError for one that is no plain CLIP ResNet, ViT or PE-Core."""
    if isinstance(visual, ModifiedResNet):
        return ResNetTower(visual, positions)
    if isinstance(visual, VisionTransformer):
        return VitTower(visual, positions)
    if isinstance(visual, TimmModel):
        return PerceptionTower(visual, positions)
    kind = type(visual).__name__
    raise InputError(f"expected open_clip's ModifiedResNet or VisionTransformer, or a PE-Core, as image tower, got {kind}")


def _weights(folder: Path) -> Path:
    if folder.is_file():
        raise InputError(f"expected a folder with {CONFIG} and {WEIGHTS}, got the file {folder}")
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    pickled = sorted(p.name for p in folder.glob("*") if p.suffix in PICKLES)
    if pickled:
        raise InputError(f"{folder} has {pickled[0]}, which may run code when loaded; only {WEIGHTS} is read, convert it first")
    raise MissingError(f"expected {WEIGHTS} in {folder}; it is not there")


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise MissingError(f"expected {CONFIG} in {folder}; it is not there")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise InputError(f"expected JSON in {path}: {problem}") from None
    settings = config.get("model_cfg") if isinstance(config, dict) else None
    if not isinstance(settings, dict) or not all(isinstance(settings.get(k), dict) for k in ("vision_cfg", "text_cfg")):
        raise InputError(f"expected model_cfg with vision_cfg and text_cfg in {path}, as open_clip writes them")
    _refuse_foreign(settings, path)
    return dict(config)


def _refuse_foreign(settings: Mapping[str, Any], path: Path) -> None:
    """Raise InputError for towers and tokenizers of other libraries, which are not read here."""
    vision, text = settings["vision_cfg"], settings["text_cfg"]
    if not str(vision.get("timm_model_name") or PERCEPTION).startswith(PERCEPTION):
        raise InputError(
            f"{path} asks for timm's {vision['timm_model_name']}; "
            "only CLIP's own ResNets and ViTs, and PE-Core, can be read inside"
        )
    if "multimodal_cfg" in settings:
        raise InputError(f"{path} is of a model that writes captions (CoCa); expected a plain CLIP")
    foreign = [key for key in _FOREIGN if text.get(key)]
    if foreign:
        raise InputError(
            f"{path} asks for {foreign[0]} {text[foreign[0]]!r}; only CLIP's own text tower and tokenizer are known"
        )


def _built(settings: Mapping[str, Any], dtype: torch.dtype, folder: Path) -> Any:
    """The model of a configuration without any weights, on the meta device: no memory, no time, no random numbers."""
    arguments = dict(settings)
    kind = CustomTextCLIP if arguments.pop("custom_text", False) else CLIP
    try:
        with torch.device("meta"):
            model: nn.Module = kind(**arguments, cast_dtype=None if dtype == torch.float32 else dtype)
    except (TypeError, ValueError, AssertionError, AttributeError, RuntimeError) as problem:
        raise InputError(f"open_clip cannot build the model of {folder / CONFIG}: {problem}") from None
    return model


def _fill(model: nn.Module, path: Path) -> None:
    """Load weights strictly, in float32, and rebuild what is not stored, such as the text tower's causal mask."""
    try:
        state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    except SafetensorError as problem:
        raise InputError(f"expected safetensors in {path}: {problem}") from None
    if isinstance(model, CustomTextCLIP):
        state = convert_to_custom_text_state_dict(state)
    _check_fit(model, state, path)
    refuse_nan(state, path)
    model.load_state_dict(state, strict=True, assign=True)
    text: Any = model.text if isinstance(model, CustomTextCLIP) else model
    if text.attn_mask is not None:
        text.attn_mask = torch.full(text.attn_mask.shape, -torch.inf).triu(1)
    if isinstance(model.visual, TimmModel):  # nor are the angles that patches are turned by
        rope: Any = model.visual.trunk.rope
        rope.to_empty(device="cpu").reset_parameters()


def _check_fit(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Raise InputError for the first few weights that are missing, are too many or have another shape."""
    expected = {k: v.shape for k, v in model.state_dict().items()}
    counters = {k for k in expected if k.endswith("num_batches_tracked")}  # of no use, and not in every file
    shapes = [k for k in expected if k in state and state[k].shape != expected[k]]
    for what, names in (
        ("does not have", sorted(expected.keys() - state.keys() - counters)),
        ("has, but the configuration does not,", sorted(state.keys() - expected.keys())),
        ("has in other shapes", [f"{k} {tuple(state[k].shape)} for {tuple(expected[k])}" for k in shapes]),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise InputError(
                f"{path} is not of the architecture in its {CONFIG}: it {what} {', '.join(names[:3])}{more}; "
                "fetch both again from one place"
            )


def _statistics(config: Mapping[str, Any], device: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the pixels, OpenAI's where the configuration does not tell."""
    given = config.get("preprocess_cfg") or {}
    mean, std = given.get("mean") or OPENAI_DATASET_MEAN, given.get("std") or OPENAI_DATASET_STD
    return torch.tensor(mean, device=device), torch.tensor(std, device=device)
