"""DINO, DINOv2 and DINOv3, random and tiny but of the true structure, against timm's own forward pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from annofree.features.dino import Dino
from annofree.hub.cards import Card
from annofree.structures import Image
from annofree.testing.tolerances import assert_close

CARD = Card(name="random", family="none", tier="S0", licence="none", trained_on="nothing", world="none", files={})
TINY: dict[str, Any] = {"embed_dim": 24, "depth": 3, "num_heads": 2}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "dino": ("vit_small_patch8_224", TINY | {"img_size": 48}),
    "dino-16": ("vit_small_patch16_224", TINY | {"img_size": 96}),
    "dinov2": ("vit_small_patch14_dinov2", TINY | {"img_size": 84}),
    "dinov2-reg": ("vit_small_patch14_reg4_dinov2", TINY | {"img_size": 84}),
    "dinov2-giant": ("vit_giant_patch14_dinov2", TINY | {"img_size": 84}),
    "dinov3": ("vit_small_patch16_dinov3", TINY | {"img_size": 96}),
    "dinov3-qkvb": ("vit_small_patch16_dinov3_qkvb", TINY | {"img_size": 96}),
    "qk-norm": ("vit_small_patch8_224", TINY | {"img_size": 48, "qk_norm": True}),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each, in timm's hub layout, every tensor random."""
    root = tmp_path_factory.mktemp("dino")
    for name, (architecture, arguments) in MODELS.items():
        torch.manual_seed(5)
        model = timm.create_model(architecture, num_classes=0, **arguments)
        with torch.no_grad():
            for key, p in model.named_parameters():
                p.copy_(torch.randn_like(p) * 0.3 + (1.0 if p.ndim == 1 and "norm" in key else 0.0))
        (root / name).mkdir()
        save_file(model.state_dict(), root / name / "model.safetensors")
        config = {"architecture": architecture, "num_classes": 0, "model_args": arguments, "pretrained_cfg": {}}
        (root / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return root


def picture(height: int, width: int, seed: int = 0) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8))


def normalized(image: Image) -> Tensor:
    x = torch.tensor(image.pixels).permute(2, 0, 1)[None] / 255
    return (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def reference(home: Path, name: str, x: Tensor) -> dict[str, Tensor]:
    """Keys, attention of the class token and final tokens, by hooks on timm's whole, unfused forward pass."""
    from safetensors.torch import load_file

    architecture, arguments = MODELS[name]
    model: Any = timm.create_model(architecture, num_classes=0, dynamic_img_size=True, **arguments)
    model.load_state_dict(load_file(home / name / "model.safetensors"))
    model.eval()
    caught: dict[str, Tensor] = {}
    attn = model.blocks[-1].attn
    attn.fused_attn = False  # so that the softmax passes through a module
    attn.attn_drop.register_forward_hook(lambda _, __, out: caught.update(attention=out))
    if name != "dinov3-qkvb":  # there the bias is added outside of the module
        attn.qkv.register_forward_hook(lambda _, __, out: caught.update(qkv=out))
    else:
        model.blocks[-1].norm1.register_forward_hook(
            lambda _, __, out: caught.update(
                qkv=F.linear(out, attn.qkv.weight, torch.cat([attn.q_bias, attn.k_bias, attn.v_bias]))
            )
        )
    p = model.num_prefix_tokens
    with torch.inference_mode():
        tokens = model.forward_features(x)
    return {
        "keys": caught["qkv"].chunk(3, -1)[1][0, p:].T,
        "attention": caught["attention"][0, :, 0, p:],
        "tokens": tokens[0, p:].T,
    }


NATIVE = {"dino": 48, "dino-16": 96, "dinov2": 84, "dinov2-reg": 84, "dinov2-giant": 84, "qk-norm": 48}
NATIVE |= {"dinov3": 96, "dinov3-qkvb": 96}


@pytest.mark.parametrize("name", MODELS)
def test_at_the_native_size_all_is_as_timm_has_it(home: Path, name: str) -> None:
    dino, image = Dino(home / name, card=CARD), picture(NATIVE[name], NATIVE[name])
    expected = reference(home, name, normalized(image))
    for what in ("keys", "attention", "tokens"):
        (found,) = getattr(dino, f"extract_{what}")([image])
        assert found.size == image.size and found.window is None and found.values.shape[1:] == (6, 6)
        assert_close(found.values.flatten(1), expected[what], depth="network")


@pytest.mark.parametrize("name", ["dinov2-reg", "dinov3"])  # those whose rule is timm's own
def test_other_sizes_as_timm_has_them(home: Path, name: str) -> None:
    dino = Dino(home / name, card=CARD)
    image = picture(4 * dino.patch, 9 * dino.patch)
    expected = reference(home, name, normalized(image))
    for what in ("keys", "attention", "tokens"):
        assert_close(getattr(dino, f"extract_{what}")([image])[0].values.flatten(1), expected[what], depth="network")


def with_positions(home: Path, name: str, x: Tensor, positions: Tensor) -> Tensor:
    """Keys of a timm model without dynamic sizes whose position embeddings are replaced."""
    from safetensors.torch import load_file

    architecture, arguments = MODELS[name]
    size = {"img_size": tuple(x.shape[-2:])}
    model: Any = timm.create_model(architecture, num_classes=0, **arguments | size)
    state = load_file(home / name / "model.safetensors")
    state["pos_embed"] = positions
    model.load_state_dict(state)
    caught: list[Tensor] = []
    model.blocks[-1].attn.qkv.register_forward_hook(lambda _, __, out: caught.append(out))
    with torch.inference_mode():
        model.eval().forward_features(x)
    return caught[0].chunk(3, -1)[1][0, model.num_prefix_tokens :].T


@pytest.mark.parametrize("name", ["dino", "dinov2"])
@pytest.mark.parametrize("rule", ["bicubic+0.1", "bicubic", "bilinear", "bicubic-antialias"])
def test_position_rules(home: Path, name: str, rule: Any) -> None:
    from safetensors.torch import load_file

    dino = Dino(home / name, card=CARD, positions=rule)
    h, w = 4, 9
    image = picture(h * dino.patch, w * dino.patch)
    pos = load_file(home / name / "model.safetensors")["pos_embed"]
    grid = pos[:, 1:].reshape(1, 6, 6, -1).permute(0, 3, 1, 2)
    arguments: dict[str, Any] = {
        "bicubic+0.1": {"scale_factor": ((h + 0.1) / 6, (w + 0.1) / 6), "mode": "bicubic"},
        "bicubic": {"size": (h, w), "mode": "bicubic"},
        "bilinear": {"size": (h, w), "mode": "bilinear"},
        "bicubic-antialias": {"size": (h, w), "mode": "bicubic", "antialias": True},
    }
    grid = F.interpolate(grid, **arguments[rule])
    expected = with_positions(home, name, normalized(image), torch.cat([pos[:, :1], grid.flatten(2).transpose(1, 2)], 1))
    assert_close(dino.extract_keys([image])[0].values.flatten(1), expected, depth="network")
    assert Dino(home / name, card=CARD).positions == "bicubic+0.1"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["dino", "dinov2-reg", "dinov3"])
def test_half_precision_is_near(home: Path, name: str, dtype: torch.dtype) -> None:
    image = picture(50, 70)
    full, half = Dino(home / name, card=CARD), Dino(home / name, card=CARD, dtype=dtype)
    # of the whole map's length, for attention is made of small numbers; seen were 0.004 and 0.03
    tolerance = 0.01 if dtype == torch.float16 else 0.08
    for what in ("keys", "attention", "tokens"):
        a, b = getattr(full, f"extract_{what}")([image])[0].values, getattr(half, f"extract_{what}")([image])[0].values
        assert b.dtype == torch.float32
        assert float((a - b).norm() / a.norm()) < tolerance, what
