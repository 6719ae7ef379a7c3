"""GroupViT and TCL of small random weights, in the layouts that they were released in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tests.support.models import write_random_clip
from tests.support.released import Shapes, fill_shapes
from torch import Tensor
from transformers import GroupViTConfig, GroupViTModel

from annofree.hub.cards import list_known_cards

__all__ = ["WIDTH", "build_groupvit_config", "fill_tcl", "list_tcl_shapes", "save_groupvit", "write_small_clip"]

WIDTH, TEXT = 64, 32


def build_groupvit_config(vocab_size: int = 49408) -> GroupViTConfig:
    """The layout of both releases, but narrow."""
    vision = {"hidden_size": 48, "intermediate_size": 96, "depths": [2, 1, 1], "num_hidden_layers": 4, "num_attention_heads": 4}
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return GroupViTConfig(
        vision_config=vision,
        text_config=text | {"vocab_size": vocab_size},
        projection_dim=16,
        projection_intermediate_dim=32,
    )


def save_groupvit(folder: Path, **changes: Any) -> None:
    """Write a GroupViT in transformers' layout, whose weights are large enough for groups to differ."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GroupViTModel(build_groupvit_config(**changes))
        for name, value in model.named_parameters():
            if value.ndim > 1:
                value.data.normal_(std=0.5 if "token" in name or "position" in name else 0.2)
    model.save_pretrained(folder)


def list_tcl_shapes(width: int = WIDTH, text: int = TEXT) -> Shapes:
    """The weights of TCL that were trained, by the names that they were released with."""
    block, net = "masker.image_encoder.backbone.transformer.resblocks.11.", "masker.image_encoder.decoder.decoder.net."
    shapes: Shapes = {
        f"{block}attn.in_proj_weight": (3 * width, width),
        f"{block}attn.in_proj_bias": (3 * width,),
        f"{block}attn.out_proj.weight": (width, width),
        f"{block}mlp.c_fc.weight": (4 * width, width),
        f"{block}mlp.c_fc.bias": (4 * width,),
        f"{block}mlp.c_proj.weight": (width, 4 * width),
    }
    plain = [f"{block}{name}" for name in ("attn.out_proj.bias", "mlp.c_proj.bias")]
    for norm in (f"{block}ln_1", f"{block}ln_2", "masker.image_encoder.decoder.image_proj.ln"):
        plain += [f"{norm}.weight", f"{norm}.bias"]
    for conv in (f"{net}{n}.{name}" for n in (0, 1) for name in ("conv", "conv2")):
        plain += [f"{conv}.norm.weight", f"{conv}.norm.bias", f"{conv}.conv.bias"]
        shapes |= {f"{conv}.conv.weight": (width, width, 3, 3), f"{conv}.gate.gate": ()}
    shapes |= dict.fromkeys(plain, (width,)) | dict.fromkeys(("masker.sim2mask.w", "masker.sim2mask.b"), ())
    return shapes | {"masker.image_encoder.decoder.image_proj.proj": (width, text)}


def fill_tcl(width: int = WIDTH, text: int = TEXT) -> dict[str, Tensor]:
    """Random weights of a TCL, with gates that are open and a line near the released one."""
    state = {name: 4 * value for name, value in fill_shapes(list_tcl_shapes(width, text)).items()}
    state |= {name: 1 + value for name, value in state.items() if name.endswith((".norm.weight", "ln_1.weight", "ln.weight"))}
    state |= {name: torch.tensor(0.5 + 0.1 * n) for n, name in enumerate(k for k in state if k.endswith(".gate"))}
    return state | {"masker.sim2mask.w": torch.tensor(9.0), "masker.sim2mask.b": torch.tensor(-1.0)}


def write_small_clip(folder: Path) -> None:
    """Write a CLIP as openai-vit-b-16 is laid out, as wide as the TCL."""
    vision = {"image_size": 64, "layers": 3, "width": WIDTH, "head_width": 64, "patch_size": 16}
    write_random_clip(folder, TEXT, vision, {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1})
    config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))
    config["model_cfg"]["quick_gelu"] = True
    config["preprocess_cfg"] = list_known_cards()["openai-vit-b-16"].preprocessing
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
