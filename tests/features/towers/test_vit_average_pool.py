"""CLIP ViTs whose image feature is the mean of the patches, against open_clip's own forward pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.model import CLIP
from open_clip.transformer import VisionTransformer
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from annofree.features.clip import Clip
from annofree.features.clip_network import CONFIG, WEIGHTS
from annofree.features.tokenizer import Tokenizer, collect_token_ids
from annofree.features.towers.vit import VitTower
from annofree.hub.cards import Card
from annofree.protocols import DensePath
from annofree.structures import Image
from annofree.testing.tolerances import assert_close

PATHS: tuple[DensePath, ...] = ("value", "value+mlp", "surgery", "attention")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tower_of(seed: int = 0, **changes: Any) -> VitTower:
    shape: dict[str, Any] = {"image_size": 64, "patch_size": 16, "width": 32, "layers": 3, "heads": 4, "mlp_ratio": 2.0}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        visual = VisionTransformer(**{**shape, "output_dim": 24, "pool_type": "avg", **changes})
        for norm in (visual.ln_pre, visual.ln_post):  # so that it matters on which side of the mean they stand
            torch.nn.init.normal_(norm.weight), torch.nn.init.normal_(norm.bias)
    return VitTower(visual.eval().requires_grad_(False))


@pytest.mark.parametrize("after", [False, True])
def test_at_the_native_size_the_pooled_feature_is_open_clips(after: bool) -> None:
    tower, x = tower_of(final_ln_after_pool=after), random(3, 3, 64, 64)
    assert_close(tower.encode_image(x), tower.visual(x), depth="network")
    other = tower_of(pool_type="tok", final_ln_after_pool=after).encode_image(x)
    assert not torch.allclose(tower.encode_image(x), other, atol=1e-2)


def test_the_side_of_the_mean_that_the_norm_stands_on_matters() -> None:
    x = random(1, 3, 64, 64)
    before, after = (tower_of(final_ln_after_pool=after).encode_image(x) for after in (False, True))
    assert not torch.allclose(before, after, atol=1e-2)


def test_at_another_size_it_is_open_clips_with_resized_positions() -> None:
    tower, x = tower_of(), random(2, 3, 96, 48)
    other = tower_of(image_size=(96, 48)).visual
    state = dict(tower.visual.state_dict())
    first, cells = state["positional_embedding"].split([1, 16])
    grid = F.interpolate(cells.T.reshape(1, 32, 4, 4), size=(6, 3), mode="bicubic", align_corners=False)
    state["positional_embedding"] = torch.cat([first, grid.flatten(2)[0].T])
    other.load_state_dict(state)
    assert_close(tower.encode_image(x), other(x), depth="network")


@pytest.mark.parametrize("size", [(64, 64), (80, 128)])
def test_the_mean_of_the_attention_path_is_the_pooled_feature(size: tuple[int, int]) -> None:
    tower, x = tower_of(), random(2, 3, *size)
    assert_close(tower.encode_dense(x, "attention").mean((2, 3)), tower.encode_image(x), depth="network")


@pytest.mark.parametrize("path", PATHS)
def test_every_path_is_what_it_is_with_a_class_token(path: DensePath) -> None:
    x = random(2, 3, 64, 96)
    averaged, ordinary = tower_of(), tower_of(pool_type="tok")
    assert torch.equal(averaged.encode_dense(x, path), ordinary.encode_dense(x, path))
    assert torch.equal(averaged.extract_keys(x), ordinary.extract_keys(x)) and torch.equal(
        averaged.extract_patches(x), ordinary.extract_patches(x)
    )


def test_gradients_reach_every_weight_as_the_class_token_is_still_attended_to() -> None:
    tower = tower_of()
    tower.visual.requires_grad_(True)
    tower.encode_image(random(1, 3, 64, 64)).square().sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and bool(p.grad.any()) for p in tower.visual.parameters())


def test_a_folder_of_such_a_clip_is_read_and_gives_open_clips_features(tmp_path: Path) -> None:
    vocabulary = collect_token_ids(["a cat"])
    text = {"context_length": 8, "vocab_size": Tokenizer(8, vocabulary).size, "width": 32, "heads": 2, "layers": 1}
    vision = {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "pool_type": "avg"}
    settings = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIP(**settings).eval()
    (tmp_path / CONFIG).write_text(
        json.dumps({"model_cfg": settings, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}})
    )
    (tmp_path / "vocabulary.json").write_text(json.dumps(vocabulary))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / WEIGHTS)
    fields: dict[str, Any] = {"tier": "S1", "licence": "MIT", "trained_on": "nothing", "world": "none", "files": {}}
    clip = Clip(tmp_path, card=Card(name="averaged", family="open_clip VisionTransformer", **fields))

    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    x = (torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255 - 0.5) / 0.25
    with torch.inference_mode():
        expected = model.encode_image(x, normalize=True)
    assert_close(clip.encode_image([Image(pixels)]), expected, depth="network")
    [cells] = clip.encode_dense([Image(pixels)], "attention")
    assert cells.values.shape == (16, 4, 4)
    assert clip.extract_keys([Image(pixels)])[0].values.shape == (32, 4, 4)
