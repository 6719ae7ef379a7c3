"""The tower of PE-Core beside timm's own forward pass: random weights, the released layout, a narrow text tower."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CustomTextCLIP
from safetensors.torch import save_file
from tests.support.models import plain_card
from torch.nn import functional as F

from annofree.errors import InputError
from annofree.features.clip import Clip
from annofree.features.clip_network import CONFIG, WEIGHTS, load_clip, wrap_tower
from annofree.features.towers.perception import PerceptionTower
from annofree.features.towers.positions import resize_positions
from annofree.structures import Image, Vocabulary
from annofree.testing.tolerances import assert_close


@pytest.fixture(scope="module")
def released() -> Any:
    """open_clip's own model, whose random weights are large enough to matter."""
    torch.manual_seed(0)
    model = CustomTextCLIP(**{k: v for k, v in settings().items() if k != "custom_text"}).eval().requires_grad_(False)
    for weights in model.parameters():
        weights.add_(torch.randn_like(weights) * 0.02)
    return model


@pytest.fixture(scope="module")
def folder(released: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("pe")
    pixels = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    (home / CONFIG).write_text(json.dumps({"model_cfg": settings(), "preprocess_cfg": pixels}), encoding="utf-8")
    save_file({k: v.contiguous() for k, v in released.state_dict().items()}, home / WEIGHTS)
    return home


@pytest.fixture(scope="module")
def tower(folder: Path) -> PerceptionTower:
    found = load_clip(folder).tower
    assert isinstance(found, PerceptionTower)
    return found


def settings() -> dict[str, Any]:
    known: Any = open_clip.get_model_config("PE-Core-T-16-384")
    return {**known, "text_cfg": {**known["text_cfg"], "width": 32, "heads": 2, "layers": 1}}


def test_images_and_texts_are_those_of_open_clip(released: Any, folder: Path, tower: PerceptionTower) -> None:
    x, loaded = torch.randn(2, 3, 384, 384), load_clip(folder)
    assert loaded.resample == "bilinear" and (tower.stride, tower.native, tower.dimension) == (16, 384, 512)
    assert_close(tower.encode_image(x), released.encode_image(x), depth="network")
    tokens = loaded.tokenizer(["a dog", "a photo of a traffic light"])
    assert tokens.shape == (2, 32)
    assert_close(loaded.encode_tokens(tokens), released.encode_text(tokens), depth="network")


def test_another_grid_is_as_timm_has_it(tower: PerceptionTower) -> None:
    trunk: Any = CustomTextCLIP(**{k: v for k, v in settings().items() if k != "custom_text"}).eval().visual.trunk
    trunk.load_state_dict(tower.visual.trunk.state_dict())
    positions = resize_positions(trunk.pos_embed[0].detach(), (6, 10), "bilinear")  # as released; timm resizes otherwise
    trunk.set_input_size((96, 160))
    trunk.pos_embed = torch.nn.Parameter(positions[None])
    x = torch.randn(1, 3, 96, 160)
    with torch.no_grad():
        tokens = trunk.forward_features(x)
    assert_close(tower.extract_patches(x), tokens[:, 1:].transpose(1, 2).reshape(1, -1, 6, 10), depth="network")
    assert_close(tower.encode_image(x), trunk.forward_head(tokens).detach(), depth="network")


def test_a_patch_is_what_the_head_makes_of_it_alone(tower: PerceptionTower) -> None:
    x, trunk = torch.randn(1, 3, 70, 100), tower.visual.trunk
    last = tower.extract_patches(x)  # the rest of a patch at the bottom and on the right is ignored
    alone = [trunk.forward_head(last[:, :, i // 6, i % 6][:, None]) for i in range(24)]
    assert_close(tower.encode_dense(x, "attention")[0].flatten(1).T, torch.cat(alone), depth="network")


def test_the_value_is_the_attention_of_a_token_to_itself(tower: PerceptionTower) -> None:
    x, block = torch.randn(1, 3, 64, 64), tower.visual.trunk.blocks[-1]
    before = tower._before(x)
    alone = torch.stack([block(before[:, [i]], None)[:, 0] for i in range(1, 17)], 1)
    expected = tower._align(alone).transpose(1, 2).reshape(1, -1, 4, 4)
    assert_close(tower.encode_dense(x, "value+mlp"), expected, depth="network")
    assert tower.encode_dense(x, "value").shape == tower.encode_dense(x, "attention").shape == (1, 512, 4, 4)
    with pytest.raises(InputError, match="dense path"):
        tower.encode_dense(x, "surgery")


def test_it_is_a_vision_language_model(folder: Path) -> None:
    use = {"dense_side": 96, "quick_gelu": False}
    clip = Clip(folder, card=plain_card(name="pe", family="open_clip PerceptionEncoder", world="none", use=use))
    image = Image(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8), "a")
    (dense,) = clip.encode_dense([image])
    assert dense.values.shape == (512, 6, 8)
    words = clip.encode_text(Vocabulary.of("dog, cat"))
    assert words.shape == (2, 512) and clip.encode_image([image]).shape == (1, 512)
    assert_close(dense.values.norm(dim=0), torch.ones(6, 8), depth="operation")
    half = Clip(folder, card=clip.card, dtype=torch.bfloat16)
    assert F.cosine_similarity(half.encode_image([image]), clip.encode_image([image])).item() > 0.99
    with pytest.raises(InputError, match="no conv4_x"):
        clip.encode_boundaries([image])


def test_other_towers_of_timm_are_refused() -> None:
    from open_clip.timm_model import TimmModel

    with pytest.raises(InputError, match="PE-Core with a class token, got TimmModel of VisionTransformer"):
        wrap_tower(TimmModel("vit_tiny_patch16_224", 8, pool="avg", proj="linear"))
