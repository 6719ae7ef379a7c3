"""ZUTIS's network: sizes as published, the flow against a slow twin, the stopped gradient, and files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from tests.support.models import write_random_clip
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError, MissingError
from annofree.features.query_decoder import compute_sine_positions
from annofree.features.towers.positions import resize_positions
from annofree.features.zutis_network import ZutisConfig, ZutisNetwork, ZutisOutput, normalize_map
from annofree.features.zutis_weights import infer_config, load_zutis, save_zutis
from annofree.hub.cards import Card, find_bundled, hash_file
from annofree.structures import Image
from annofree.testing.tolerances import assert_close

TINY = ZutisConfig(
    width=64,
    layers=2,
    heads=1,
    patch=8,
    image_size=32,
    embed_dim=20,
    queries=5,
    decoder_layers=2,
    decoder_ffn=40,
    mlp_hidden=24,
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(config: ZutisConfig = TINY, seed: int = 0) -> ZutisNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ZutisNetwork(config).eval()


def on_meta(config: ZutisConfig) -> ZutisNetwork:
    with torch.device("meta"):
        return ZutisNetwork(config)


def picture(size: tuple[int, int], seed: int = 0) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8), f"picture-{seed}")


# Sizes


@pytest.mark.parametrize(("patch", "parameters"), [(16, 134_458_368), (32, 136_114_944)])
def test_parameters_are_as_many_as_published(patch: int, parameters: int) -> None:
    network = on_meta(ZutisConfig(patch=patch))
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert sum(v.numel() for v in network.state_dict().values()) == parameters  # nothing else is kept


def test_the_encoder_has_the_keys_of_openais_clip() -> None:
    settings = open_clip.get_model_config("ViT-B-16-quickgelu")
    with torch.device("meta"):
        visual = CLIP(**settings).visual.state_dict()
    ours = on_meta(ZutisConfig()).encoder.state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in visual.items()}


def test_the_released_prefixes() -> None:
    assert {name.split(".")[0] for name in TINY_STATE} == {"encoder", "ffn1", "ffn2", "decoder", "query_embed"}


TINY_STATE = made().state_dict()


# The flow


def slow(network: ZutisNetwork, pixels: Tensor) -> ZutisOutput:
    """The order of the paper: all tokens are made twice as fine, then projected; a LayerNorm over each whole map."""
    c, v = network.config, network.encoder
    h, w = pixels.shape[-2] // c.patch, pixels.shape[-1] // c.patch
    x = v.conv1(pixels).flatten(2).transpose(1, 2)
    x = torch.cat([v.class_embedding.expand(len(x), 1, -1), x], 1)
    x = x + resize_positions(v.positional_embedding, (h, w), "bicubic+0.1-always")
    tokens = v.ln_post(v.transformer(v.ln_pre(x)))[:, 1:].transpose(1, 2).reshape(len(x), c.width, h, w)
    fine = F.interpolate(tokens, size=(2 * h, 2 * w), mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
    projected = fine @ v.proj
    normed = F.layer_norm(projected, projected.shape[1:], eps=1e-5)
    units = normed / (normed.norm(dim=-1, keepdim=True) + 1e-7)
    memory = network.ffn1(fine)
    seen = network.decoder(network.query_embed.weight, memory.flatten(1, 2), compute_sine_positions((2 * h, 2 * w), c.width))
    queries = network.ffn2(seen)
    queries = queries / queries.norm(dim=-1, keepdim=True)
    masks = torch.stack([torch.einsum("bqc,byxc->bqyx", q, memory) for q in queries.unbind(1)], 1).sigmoid()
    centerd = projected - projected.mean((1, 2, 3), keepdim=True)
    return ZutisOutput(units.permute(0, 3, 1, 2), centerd.norm(dim=-1), masks)


@pytest.mark.parametrize("size", [(32, 32), (24, 56), (45, 37), (8, 8)])
@torch.inference_mode()
def test_the_flow_is_that_of_the_slow_twin(size: tuple[int, int]) -> None:
    network, pixels = made(), random(2, 3, *size)
    found, expected = network(pixels), slow(network, pixels)
    cells = (2 * (size[0] // 8), 2 * (size[1] // 8))
    assert [tuple(part.shape) for part in found] == [(2, 20, *cells), (2, *cells), (2, 2, 5, *cells)]
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, depth="network")
    assert found.masks.min() < found.masks.max()
    last = network(pixels, every_layer=False)
    assert_close(last.masks, found.masks[:, -1:], depth="network")  # products of another shape


def test_taking_the_mean_of_the_map_is_its_layer_norm() -> None:
    projected = 3 * random(2, 50, 14, 18) + 0.7
    units, lengths = normalize_map(projected)
    normed = F.layer_norm(projected, projected.shape[1:], eps=1e-5)
    expected = normed / (normed.norm(dim=1, keepdim=True) + 1e-7)
    assert_close(units, expected)
    ratio = lengths / normed.norm(dim=1)
    assert_close(ratio, ratio[:, :1, :1].expand_as(ratio))  # one scale an image


def test_positions_are_moved_at_the_native_size_too() -> None:
    network, pixels = made(), random(1, 3, 32, 32)
    with torch.inference_mode():
        before = network(pixels).features
        moved = resize_positions(network.encoder.positional_embedding, (4, 4), "bicubic+0.1-always")
    assert not torch.equal(moved, network.encoder.positional_embedding)
    unmoved = network.encoder.ln_post(network.encoder.transformer(network.encoder._embeds(pixels)))[:, 1:]
    fine = F.interpolate((unmoved @ network.encoder.proj).transpose(1, 2).view(1, -1, 4, 4), scale_factor=2, mode="bilinear")
    assert (normalize_map(fine)[0] - before).abs().max() > 1e-3


@torch.inference_mode()
def test_what_is_left_over_beyond_whole_patches_is_not_seen() -> None:
    network, pixels = made(), random(1, 3, 45, 37)
    for one, other in zip(network(pixels), network(pixels[..., :40, :32]), strict=True):
        assert_close(one, other, depth="network")


# Gradients


def gradients(network: ZutisNetwork, loss: Tensor) -> dict[str, float]:
    network.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    total: dict[str, float] = {}
    for name, parameter in network.named_parameters():
        part = name.split(".")[0]
        total[part] = total.get(part, 0.0) + (0.0 if parameter.grad is None else float(parameter.grad.abs().sum()))
    return total


def test_the_mask_loss_stops_before_the_encoder() -> None:
    network, pixels = made().train(), random(2, 3, 32, 40)
    from_masks = gradients(network, network(pixels).masks.square().mean())
    assert from_masks.pop("encoder") == 0.0 and all(value > 0 for value in from_masks.values())
    from_features = gradients(network, network(pixels).features[:, 0].square().mean())
    assert from_features.pop("encoder") > 0 and not any(from_features.values())


def test_without_the_stop_it_goes_on() -> None:
    stopped, free = made().train(), made(replace(TINY, stop_gradient=False)).train()
    pixels = random(1, 3, 32, 40)
    assert torch.equal(stopped(pixels).masks, free(pixels).masks)
    assert all(value > 0 for value in gradients(free, free(pixels).masks.square().mean()).values())


def test_half_precision_leaves_features_and_masks_in_full() -> None:
    network, pixels = made(), random(1, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        half = network(pixels)
    assert {part.dtype for part in half} == {torch.float32}
    assert_close(half.features.norm(dim=1), torch.ones(1, 8, 8))
    assert_close(half.masks, network(pixels).masks, dtype=torch.bfloat16, depth="network")


# Images


def test_pictures_of_many_sizes_are_as_each_alone() -> None:
    network = made()
    images = [picture(size, i) for i, size in enumerate([(40, 48), (32, 32), (40, 48), (1, 1), (3, 90)])]
    together = network.propose(images)
    for image, found in zip(images, together, strict=True):
        cells = tuple(2 * max(8, side) // 8 // 2 * 2 for side in image.size)
        assert found.masks.shape == (5, *cells) and found.features.shape == (20, *cells) and found.lengths.shape == cells
        for one, other in zip(found, network.propose([image])[0], strict=True):
            assert_close(one, other, depth="network")
    assert network.propose([]) == []


def test_pixels_are_normalised_by_the_configuration() -> None:
    network, image = made(), picture((32, 32))
    x = torch.from_numpy(image.pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]
    x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.inference_mode():
        assert_close(network.propose([image])[0].masks, network(x).masks[0, -1], depth="network")


def test_pictures_are_read_at_the_size_asked_for() -> None:
    network = made()
    (small,) = network.propose([picture((64, 96))], side=32)
    (capped,) = network.propose([picture((64, 96))], longest=48)
    assert small.masks.shape == (5, 8, 12) and capped.masks.shape == (5, 8, 12)


# From a CLIP


def clip_folder(folder: Path, **vision: Any) -> Path:
    text = {"context_length": 9, "vocab_size": 20, "width": 32, "heads": 2, "layers": 1}
    tower = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8, **vision}
    write_random_clip(folder, 20, tower, text, seed=3)
    return folder


@pytest.mark.parametrize("pool", ["tok", "avg"])
def test_a_clips_vit_becomes_the_encoder(tmp_path: Path, pool: str) -> None:
    folder = clip_folder(tmp_path, pool_type=pool)
    network = ZutisNetwork.from_clip(folder, queries=3, names=["dog"], decoder_heads=4)
    config = network.config
    assert (config.width, config.layers, config.heads, config.patch) == (64, 2, 2, 8)
    assert (config.image_size, config.embed_dim, config.quick_gelu) == (32, 20, False)
    assert (config.queries, config.names, config.decoder_heads, network.dimension) == (3, ("dog",), 4, 20)
    assert all(p.requires_grad for p in network.parameters()) and network.training
    with torch.random.fork_rng():
        torch.manual_seed(3)
        visual = CLIP(**json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]).visual
    assert all(torch.equal(v, network.encoder.state_dict()[k]) for k, v in visual.state_dict().items())
    assert ZutisNetwork.from_clip(folder, quick_gelu=True).config.quick_gelu


def test_a_resnet_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected a CLIP with a ViT in .*, got one with ModifiedResNet"):
        ZutisNetwork.from_clip(find_bundled("tiny-clip"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": 0}, "expected queries of a ZUTIS network to be a whole number from 1, got 0"),
        ({"patch": 16.0}, "expected patch of a ZUTIS network to be a whole number"),
        ({"heads": 5}, "expected heads to divide the width 64, got 5"),
        ({"decoder_heads": 7}, "expected decoder_heads to divide the width 64, got 7"),
    ],
)
def test_sizes_that_make_no_network(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(TINY, **changes)


# Files


def assert_same(one: ZutisNetwork, other: ZutisNetwork, kept: torch.dtype = torch.float32) -> None:
    """All weights of ``other`` are those of ``one`` as they were ``kept``, and so is what it says of an image."""
    weights = other.state_dict()
    assert all(torch.equal(weights[name], value.to(kept).float()) for name, value in one.state_dict().items())
    with torch.inference_mode():
        for a, b in zip(other(random(1, 3, 40, 32)), one(random(1, 3, 40, 32)), strict=True):
            assert_close(a, b, dtype=kept, depth="network")


def test_a_folder_holds_the_network(tmp_path: Path) -> None:
    config = replace(TINY, names=("dog", "cat"), quick_gelu=False, stop_gradient=False, mean=(0.5, 0.5, 0.5))
    network = made(config)
    save_zutis(network, tmp_path / "made")
    loaded = load_zutis(tmp_path / "made")
    assert loaded.config == config
    assert_same(network, loaded, torch.float16)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    weights = tmp_path / "made" / "model.safetensors"
    assert loaded.provenance == {
        "name": "made",
        "sha256": {weights.name: hash_file(weights)},
        "trained_on": ["dog", "cat"],
    }
    assert weights.stat().st_size < 2.1 * sum(p.numel() for p in network.parameters()) + 20_000
    save_zutis(network, tmp_path / "exact", torch.float32)
    assert_same(network, load_zutis(tmp_path / "exact"))


def test_a_card_says_what_the_weights_are(tmp_path: Path) -> None:
    save_zutis(made(), tmp_path)
    files: dict[str, str | None] = {p.name: hash_file(p) for p in tmp_path.iterdir()}
    card = Card("mine", "annofree ZUTIS", "S1", "MIT", "emoji", "emoji", files=files, use={"side": 32}, kind="segmenter")
    given = load_zutis(tmp_path, card=card)
    assert given.side == 32 and given.provenance == card.to_provenance() | {"trained_on": []}
    card.write(tmp_path)
    assert load_zutis(tmp_path).provenance == given.provenance


@pytest.mark.parametrize("layout", ["flat", "nested", "bare queries", "safetensors", "folder"])
def test_released_weights_tell_their_sizes(tmp_path: Path, layout: str) -> None:
    network = made()
    state: dict[str, Any] = dict(network.state_dict())
    if layout == "bare queries":
        state["query_embed"] = state.pop("query_embed.weight")
    path = tmp_path / ("model.safetensors" if layout in ("safetensors", "folder") else "released.pt")
    if path.suffix == ".pt":
        torch.save({"model": state} if layout == "nested" else state, path)
    else:
        save_file(state, path)
    loaded = load_zutis(tmp_path if layout == "folder" else path)
    assert loaded.config == TINY
    assert_same(network, loaded)


@pytest.mark.parametrize("patch", [16, 32])
def test_published_sizes_are_read_off_the_weights(patch: int) -> None:
    config = ZutisConfig(patch=patch)
    assert infer_config(on_meta(config).state_dict(), Path("released.pt")) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ffn2.layers.2.bias": None}, r"model\.safetensors lacks ffn2\.layers\.2\.bias"),
        ({"decoder.extra": torch.zeros(1)}, r"also has decoder\.extra"),
        ({"ffn1.layers.1.bias": torch.zeros(7)}, r"has in other shapes ffn1\.layers\.1\.bias \(7,\) for \(24,\)"),
        ({"encoder.proj": None}, "its sizes do not show: 'encoder.proj'"),
    ],
)
def test_other_weights_are_refused(tmp_path: Path, change: dict[str, Tensor | None], message: str) -> None:
    state = {k: v for k, v in {**TINY_STATE, **change}.items() if v is not None}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=message):
        load_zutis(tmp_path)


def test_pickles_that_may_run_code_are_not_read(tmp_path: Path) -> None:
    torch.save({"encoder": Path("anything")}, tmp_path / "released.pt")
    with pytest.raises(InputError, match="expected tensors alone in"):
        load_zutis(tmp_path / "released.pt")
    torch.save({"epoch": 3, "state": TINY_STATE}, tmp_path / "state.pt")
    with pytest.raises(InputError, match="expected a state dict of tensors in"):
        load_zutis(tmp_path / "state.pt")


def test_broken_files(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="expected the weights of a ZUTIS network at"):
        load_zutis(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="expected safetensors in"):
        load_zutis(tmp_path)
    save_zutis(made(), tmp_path)
    (tmp_path / "config.json").write_text('{"colour": 3}')
    with pytest.raises(InputError, match="expected the configuration of a ZUTIS network in"):
        load_zutis(tmp_path)
