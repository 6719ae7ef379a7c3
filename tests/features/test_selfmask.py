"""SelfMask: its tokens against DINO's reader, its masks by hand, the query that is chosen, and what the loader takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError, MissingError
from annofree.features.dino import Dino
from annofree.features.selfmask import SelfMask, load_selfmask, save_selfmask
from annofree.features.selfmask_network import SelfMaskConfig, SelfMaskNetwork
from annofree.hub.cards import Card, hash_file
from annofree.protocols import Objectness
from annofree.structures import Image
from annofree.testing.tolerances import assert_close

TINY = SelfMaskConfig(
    model_args={"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2}, queries=5, layers=2, heads=2, ffn=48
)


def network(config: SelfMaskConfig = TINY) -> SelfMaskNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = SelfMaskNetwork(config).eval().requires_grad_(False)
        made.encoder.pos_embed.normal_()
    return made


def noise(height: int, width: int, seed: int = 0) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def card(folder: Path, **use: Any) -> Card:
    files = {name: hash_file(folder / name) for name in ("config.json", "model.safetensors")}
    family = "SelfMask"
    return Card("tiny-selfmask", family, "S0", "MIT", "nothing", "emoji", files, kind="saliency", use=use)


def test_tokens_are_those_that_dino_reads(tmp_path: Path) -> None:
    made = network()
    state = {k: v.clone() for k, v in made.encoder.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    config = {"architecture": TINY.architecture, "model_args": TINY.model_args}
    (tmp_path / "config.json").write_text(json.dumps(config))
    card(tmp_path).write(tmp_path)
    image = noise(48, 40)
    (expected,) = Dino(tmp_path, positions="bicubic").extract_tokens([image])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (TINY.mean, TINY.std))
    pixels = (torch.tensor(image.pixels).permute(2, 0, 1) / 255 - mean) / std
    assert_close(made.extract_tokens(pixels[None])[0], expected.values, depth="network")


def test_masks_are_dot_products_of_queries_with_twice_as_many_tokens() -> None:
    made = network()
    pixels = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    out = made(pixels)
    assert out.masks.shape == (2, 2, 5, 4, 6) and out.objectness.shape == (2, 2, 5)
    tokens = made.extract_tokens(pixels)
    queries = made.decoder(made.query_embed, tokens.flatten(2).transpose(1, 2))
    fine = F.interpolate(tokens, size=(4, 6), mode="bilinear")
    for image, layer, query in [(0, 0, 0), (1, 1, 4)]:
        vector = queries[image, layer, query]
        for y, x in [(0, 0), (3, 5), (2, 1)]:
            assert_close(out.masks[image, layer, query, y, x], 1 / (1 + np.exp(-float(vector @ fine[image, :, y, x]))))
        first, _, second, _, third = made.objectness
        hidden = torch.relu(second(torch.relu(first(vector))))
        assert_close(out.objectness[image, layer, query], third(hidden).sigmoid()[0])


def test_the_query_of_the_largest_objectness_is_chosen(tmp_path: Path) -> None:
    save_selfmask(network(), tmp_path)
    model = SelfMask(tmp_path)
    objectness: Objectness = model
    images = [noise(32, 40), noise(20, 13, 1), noise(32, 40, 2)]
    maps = objectness.predict_maps(images)
    for image, one, salient in zip(images, maps, model.predict_masks(images, every=True), strict=True):
        assert salient.all_soft is not None and salient.all_objectness is not None
        best = int(salient.all_objectness.argmax())
        assert salient.all_soft.shape == (5, *image.size) and salient.objectness == float(salient.all_objectness[best])
        assert torch.equal(salient.soft, salient.all_soft[best]) and torch.equal(salient.mask, salient.soft > 0.5)
        assert_close(one, salient.soft)  # drawn alone, not with the other queries' masks
    alone = model.predict_masks(images[1:2])[0]
    assert alone.all_soft is None
    assert_close(alone.soft, maps[1], depth="network")


def test_pictures_keep_their_size_and_are_padded_or_take_a_short_side(tmp_path: Path) -> None:
    save_selfmask(network(), tmp_path)
    image = noise(20, 13)
    model = SelfMask(tmp_path)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (TINY.mean, TINY.std))
    padded = F.pad((torch.tensor(image.pixels).permute(2, 0, 1) / 255 - mean) / std, (0, 3, 0, 4))
    out = model.network(padded[None])
    best = int(out.objectness[0, -1].argmax())
    large = F.interpolate(out.masks[:, -1, best : best + 1], scale_factor=4, mode="bilinear")[0, 0]
    assert_close(model.predict_maps([image])[0], large[:20, :13], depth="network")
    assert SelfMask(tmp_path, side=32).predict_maps([image])[0].shape == (20, 13)
    card(tmp_path, side=16).write(tmp_path)
    by_card = SelfMask(tmp_path)
    assert by_card.side == 16 and by_card.provenance["weights"]["tier"] == "S0"


def released(made: SelfMaskNetwork, objectness: str = "ffn.layers") -> dict[str, Tensor]:
    """A state dict as the released files have it, the layers of the objectness under a name of their own."""
    state = {k: v.clone() for k, v in made.state_dict().items()}
    for ours, theirs in ((0, 0), (2, 1), (4, 2)):
        for part in ("weight", "bias"):
            state[f"{objectness}.{theirs}.{part}"] = state.pop(f"objectness.{ours}.{part}")
    return state


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_the_released_network_is_read_without_a_configuration(tmp_path: Path) -> None:
    with torch.device("meta"):
        made = SelfMaskNetwork(SelfMaskConfig(queries=10))
    made = made.to_empty(device="cpu").eval()
    for parameter in made.parameters():
        torch.nn.init.uniform_(parameter)  # quicker than the network's own rule
    assert sum(p.numel() for p in made.encoder.parameters()) == 21_670_272, "DINO ViT-S/8"
    torch.save(released(made), tmp_path / "selfmask_nq10.pt")
    found = load_selfmask(tmp_path / "selfmask_nq10.pt")
    assert found.config == SelfMaskConfig(queries=10) and not found.training
    assert same(found.state_dict(), made.state_dict())


@pytest.mark.parametrize("style", ["safetensors", "torch", "nested", "embedding"])
def test_a_folder_with_a_configuration_is_read(tmp_path: Path, style: str) -> None:
    made = network()
    save_selfmask(made, tmp_path)
    state = released(made, "head.of.objectness")
    if style != "safetensors":
        (tmp_path / "model.safetensors").unlink()
    if style == "embedding":
        state["query_embed.weight"] = state.pop("query_embed")
    if style == "safetensors":
        save_file(state, tmp_path / "model.safetensors")
    else:
        torch.save({"state_dict": state} if style == "nested" else state, tmp_path / "any.pt")
    assert same(load_selfmask(tmp_path).state_dict(), made.state_dict())


def test_what_is_written_is_read_again_in_half_precision(tmp_path: Path) -> None:
    made = network(replace(TINY, mean=(0.5, 0.5, 0.5)))
    save_selfmask(made, tmp_path)
    found = load_selfmask(tmp_path)
    assert found.config == made.config
    assert all(v.dtype == torch.float16 for v in load_file(tmp_path / "model.safetensors").values())
    assert same(found.state_dict(), {k: v.half().float() for k, v in made.state_dict().items()})


def test_other_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"a folder with model\.safetensors"):
        load_selfmask(tmp_path)
    save_selfmask(network(), tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    cases = {
        "encoder.norm.weight": {k: v for k, v in whole.items() if k != "encoder.norm.weight"},
        "encoder.extra": whole | {"encoder.extra": torch.ones(1)},
        "size mismatch": whole | {"query_embed": torch.ones(6, 24)},
        "three linear layers": {k: v for k, v in whole.items() if not k.startswith("objectness.4")},
        "query_embed, and": {k: v for k, v in whole.items() if k != "query_embed"},
    }
    for message, state in cases.items():
        save_file(state, tmp_path / "model.safetensors")
        with pytest.raises(InputError, match=message):
            load_selfmask(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="cannot be read"):
        load_selfmask(tmp_path)
    torch.save({"model": [1, 2]}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="tensors by name"):
        load_selfmask(tmp_path / "other.pt")
    (tmp_path / "other.pt").write_bytes(b"\x80\x02c__main__\nthing\n.")
    with pytest.raises(InputError, match="cannot be read"):
        load_selfmask(tmp_path / "other.pt")


def test_other_configurations_are_refused(tmp_path: Path) -> None:
    save_selfmask(network(), tmp_path)
    whole = json.loads((tmp_path / "config.json").read_text())
    cases = {
        "says colour": whole | {"colour": 1},
        "name of a timm model": whole | {"architecture": "no_such_model"},
        "class token alone": whole | {"architecture": "resnet18", "model_args": {}},
        "cannot be built": whole | {"model_args": {"colour": 1}},
        "its 5 heads divide": whole | {"heads": 5},
    }
    for message, config in cases.items():
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(InputError, match=message):
            load_selfmask(tmp_path)
