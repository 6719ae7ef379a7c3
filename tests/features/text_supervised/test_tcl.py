"""TCL's network against a slow twin, written from the description: each layer by itself, one token and one cell at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.support.models import plain_card
from tests.support.text_supervised import WIDTH, fill_tcl, write_small_clip
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import AnnofreeError, InputError, MissingError
from annofree.features.clip import Clip
from annofree.features.text_supervised.tcl import TclNetwork, load_tcl
from annofree.structures import Vocabulary
from annofree.testing.fakes import FakeClip
from annofree.testing.tolerances import assert_close

BLOCK = "masker.image_encoder.backbone.transformer.resblocks.11."
DECODER = "masker.image_encoder.decoder."
USE = {"clip": "small"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    folder = tmp_path_factory.mktemp("clip")
    write_small_clip(folder)
    return Clip(folder, card=plain_card(name="small", use={"quick_gelu": True}))


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return fill_tcl()


@pytest.fixture(scope="module")
def network(clip: Clip, weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> TclNetwork:
    folder = tmp_path_factory.mktemp("tcl")
    save_file(weights, folder / "model.safetensors")
    return load_tcl(folder, clip, card=plain_card(use=USE))


def norm(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    """A LayerNorm of vectors (..., C), term by term."""
    centered = x - x.mean(-1, keepdim=True)
    return centered / (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def slow_block(token: Tensor, w: dict[str, Tensor], prefix: str) -> Tensor:
    """CLIP's block on a token (C) that sees itself alone: its attention is 1, so its value is all that comes of it."""
    normed = norm(token, w, f"{prefix}ln_1")
    value = w[f"{prefix}attn.in_proj_weight"][2 * WIDTH :] @ normed + w[f"{prefix}attn.in_proj_bias"][2 * WIDTH :]
    token = token + w[f"{prefix}attn.out_proj.weight"] @ value + w[f"{prefix}attn.out_proj.bias"]
    hidden = w[f"{prefix}mlp.c_fc.weight"] @ norm(token, w, f"{prefix}ln_2") + w[f"{prefix}mlp.c_fc.bias"]
    hidden = hidden * torch.sigmoid(1.702 * hidden)
    added = w[f"{prefix}mlp.c_proj.weight"] @ hidden + w[f"{prefix}mlp.c_proj.bias"]
    return torch.add(token, added)


def slow_gated(maps: Tensor, w: dict[str, Tensor], prefix: str) -> Tensor:
    """What a gated convolution adds to maps (C, h, w), one cell at a time."""
    normed = norm(maps.permute(1, 2, 0), w, f"{prefix}.norm")
    active = normed * 0.5 * (1 + torch.erf(normed / 2**0.5))
    height, width = active.shape[:2]
    out = torch.zeros_like(maps)
    for y in range(height):
        for x in range(width):
            total = w[f"{prefix}.conv.bias"].clone()
            for dy, dx in ((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    total += w[f"{prefix}.conv.weight"][:, :, dy + 1, dx + 1] @ active[y + dy, x + dx]
            out[:, y, x] = torch.tanh(w[f"{prefix}.gate.gate"]) * total
    return out


def slow_decoder(maps: Tensor, w: dict[str, Tensor]) -> Tensor:
    """Unit features (D, 4 h, 4 w) of maps (C, h, w)."""
    for n in (0, 1):
        maps = maps.repeat_interleave(2, 1).repeat_interleave(2, 2)
        maps = maps + slow_gated(maps, w, f"{DECODER}decoder.net.{n}.conv")
        maps = maps + slow_gated(maps, w, f"{DECODER}decoder.net.{n}.conv2")
    cells = norm(maps.permute(1, 2, 0), w, f"{DECODER}image_proj.ln") @ w[f"{DECODER}image_proj.proj"]
    units: Tensor = cells / cells.norm(dim=-1, keepdim=True)
    return units.permute(2, 0, 1)


def test_the_network_is_the_slow_twin(network: TclNetwork, clip: Clip, weights: dict[str, Tensor]) -> None:
    x = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    fine, known = network.encode(x)
    w = {k: v.double() for k, v in weights.items()}
    visual: Any = clip.tower.visual
    with torch.inference_mode():
        before = visual.ln_pre(_embed(visual, x))
        for block in visual.transformer.resblocks[:-1]:
            before = block(before)
    tokens = before[0].double()
    own = torch.stack([slow_block(t, w, BLOCK) for t in tokens[1:]]).T.reshape(WIDTH, 2, 3)
    assert_close(fine[0], slow_decoder(own, w), dtype=torch.float32, depth="network")
    frozen = {f"{k}": v.double() for k, v in visual.transformer.resblocks[-1].state_dict().items()}
    last = torch.stack([slow_block(t, frozen, "") for t in tokens[1:]])
    cells = F.normalize(norm(last, _double(visual.ln_post, "ln"), "ln") @ visual.proj.double(), dim=-1)
    assert_close(known[0], cells.T.reshape(-1, 2, 3), dtype=torch.float32, depth="network")
    assert fine.shape == (1, 32, 8, 12) and network.line == (9.0, -1.0)


def _embed(visual: Any, x: Tensor) -> Tensor:
    """Class and patch tokens with positions, resized bicubically."""
    patches = visual.conv1(x).flatten(2).transpose(1, 2)
    grid = visual.positional_embedding[1:].T.reshape(1, -1, 4, 4)
    positions = F.interpolate(grid, size=(2, 3), mode="bicubic", align_corners=False).flatten(2)[0].T
    first = visual.class_embedding + visual.positional_embedding[0]
    return torch.cat([first[None, None], patches + positions], 1)


def _double(module: Any, name: str) -> dict[str, Tensor]:
    return {f"{name}.{k}": v.double() for k, v in module.state_dict().items()}


def test_names_are_averaged_before_they_are_made_unit(clip: Clip) -> None:
    (dog,) = clip.with_prompts("tcl").encode_text(Vocabulary.of("dog"))
    texts = [
        f"itap of a {'dog'}.",
        "a bad photo of a dog.",
        "a origami dog.",
        "a photo of the large dog.",
        "a dog in a video game.",
    ]
    texts += ["art of the dog.", "a photo of the small dog.", "a photo of many dog.", "a photo of dogs."]
    raw = clip._encoded(texts)
    assert_close(dog, F.normalize(raw.mean(0), dim=0), depth="network")
    (other,) = clip.with_prompts("tips").encode_text(Vocabulary.of("dog"))
    assert_close(other, F.normalize(F.normalize(raw, dim=1).mean(0), dim=0), depth="network")
    assert not torch.equal(dog, other)


def spoiled(state: dict[str, Tensor], change: str) -> dict[str, Tensor]:
    key = f"{DECODER}image_proj.proj"
    changed = {
        "missing": {k: v for k, v in state.items() if k != f"{BLOCK}ln_1.weight"},
        "no projection": {k: v for k, v in state.items() if k != key},
        "unexpected": state | {"masker.other": torch.zeros(1)},
        "shape": state | {f"{BLOCK}ln_1.weight": torch.zeros(3)},
        "nan": state | {"masker.sim2mask.w": torch.tensor(float("nan"))},
    }
    return changed[change]


@pytest.mark.parametrize("change", ["missing", "no projection", "unexpected", "shape", "nan"])
def test_weights_that_do_not_fit(change: str, clip: Clip, weights: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(spoiled(weights, change), tmp_path / "model.safetensors")
    with pytest.raises(AnnofreeError, match=r"expected .*model\.safetensors") as refusal:
        load_tcl(tmp_path, clip, card=plain_card(use=USE))
    assert "\n" not in str(refusal.value)


def test_a_clip_that_it_was_not_trained_on(clip: Clip, weights: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"expected TCL's weights in .* as model\.safetensors"):
        load_tcl(tmp_path, clip, card=plain_card(use=USE))
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="expected the CLIP that toy was trained on, openai-vit-b-16, got small; name models"):
        load_tcl(tmp_path, clip, card=plain_card(use={"clip": "openai-vit-b-16"}))
    with pytest.raises(InputError, match="got fake-clip"):
        load_tcl(tmp_path, FakeClip(), card=plain_card(use=USE))
    save_file(fill_tcl(64, 16), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="with features of 16, got small, which is of another size"):
        load_tcl(tmp_path, clip, card=plain_card(use=USE))
