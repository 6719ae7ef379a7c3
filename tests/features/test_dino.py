import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from tests.support.models import plain_card, spoil_model
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError, MissingError
from annofree.features.dino import Dino
from annofree.hub.cards import hash_file
from annofree.protocols import SelfSupervised
from annofree.structures import Image
from annofree.testing.tolerances import assert_close

TINY: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": 48}
USE: dict[str, Any] = {}


def folder_of(root: Path, architecture: str = "vit_small_patch8_224", use: dict[str, Any] = USE, **arguments: Any) -> Path:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        model = timm.create_model(architecture, num_classes=0, **TINY | arguments)
        for key, p in model.named_parameters():
            p.copy_(torch.randn_like(p) * 0.3 + (1.0 if p.ndim == 1 and "norm" in key else 0.0))
    root.mkdir(exist_ok=True)
    save_file(model.state_dict(), root / "model.safetensors")
    config = {
        "architecture": architecture,
        "model_args": TINY | arguments,
        "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.2] * 3},
    }
    (root / "config.json").write_text(json.dumps(config), encoding="utf-8")
    files = {name: hash_file(root / name) for name in ("config.json", "model.safetensors")}
    plain_card(name="tiny-dino", family="timm VisionTransformer", world="none", files=files, use=use).write(root)
    return root


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("dino") / "tiny-dino")


@pytest.fixture(scope="module")
def dino(home: Path) -> Dino:
    return Dino(home)


def picture(height: int, width: int, seed: int = 0) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8))


def by_timm(home: Path, x: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and final tokens (D, h * w) of normalised pixels, by timm's own forward pass and position rule."""
    config = json.loads((home / "config.json").read_text(encoding="utf-8"))
    model: Any = timm.create_model(config["architecture"], num_classes=0, dynamic_img_size=True, **config["model_args"])
    model.load_state_dict(load_file(home / "model.safetensors"))
    caught: list[Tensor] = []
    model.blocks[-1].attn.qkv.register_forward_hook(lambda _, __, out: caught.append(out))
    with torch.inference_mode():
        tokens = model.eval().forward_features(x)
    return caught[0].chunk(3, -1)[1][0, 1:].T, tokens[0, 1:].T


def test_it_is_what_methods_ask_for(dino: Dino) -> None:
    asked: SelfSupervised = dino
    assert (asked.heads, asked.patch, dino.dimension) == (3, 8, 24)
    said = asked.provenance
    assert (said["name"], said["tier"], said["side"], said["positions"]) == ("tiny-dino", "S0", None, "bicubic+0.1")
    assert set(said["sha256"]) == {"config.json", "model.safetensors"}


def test_pictures_keep_their_size_and_are_padded_with_zeros_after_normalising(home: Path) -> None:
    dino = Dino(home, positions="bicubic-antialias")  # timm's rule
    image = picture(45, 50)
    x = (torch.tensor(image.pixels).permute(2, 0, 1)[None] / 255 - 0.5) / 0.2  # as config.json says
    keys, tokens = by_timm(home, F.pad(x, (0, 6, 0, 3)))
    for found, expected in ((dino.extract_keys([image])[0], keys), (dino.extract_tokens([image])[0], tokens)):
        assert (found.values.shape, found.size, found.window) == ((24, 6, 7), (45, 50), (48, 56))
        assert_close(found.values.flatten(1), expected, depth="network")


def test_whole_patches_need_no_window(dino: Dino) -> None:
    (found,) = dino.extract_keys([picture(16, 40)])
    assert found.values.shape == (24, 2, 5) and found.window is None


def test_a_picture_smaller_than_a_patch(dino: Dino) -> None:
    (found,) = dino.extract_attention([picture(3, 1)])
    assert found.values.shape == (3, 1, 1) and found.window == (8, 8)


def test_no_pictures(dino: Dino) -> None:
    assert dino.extract_keys([]) == dino.extract_attention([]) == dino.extract_tokens([]) == []


def test_together_is_as_each_alone_whatever_came_before(dino: Dino) -> None:
    images = [picture(30, 50), picture(64, 48, 1), picture(32, 56, 2), picture(48, 48, 3)]
    alone = [dino.extract_keys([i])[0] for i in images]
    for found, expected in zip(dino.extract_keys(images), alone, strict=True):
        assert_close(found.values, expected.values, depth="network")
        assert (found.size, found.window) == (expected.size, expected.window)


def test_both_from_one_pass(dino: Dino) -> None:
    images = [picture(30, 50), picture(64, 48, 1)]
    for both, keys, attention in zip(
        dino.extract_keys_and_attention(images), dino.extract_keys(images), dino.extract_attention(images), strict=True
    ):
        assert torch.equal(both[0].values, keys.values) and torch.equal(both[1].values, attention.values)


def test_attention_is_a_share_of_all_tokens(dino: Dino) -> None:
    (found,) = dino.extract_attention([picture(48, 48)])
    assert (found.values >= 0).all() and (found.values.sum((1, 2)) < 1).all()


def test_keys_ask_the_last_block_for_nothing_else(home: Path) -> None:
    dino = Dino(home)
    ran: list[str] = []
    for name, module in dino._model.blocks[-1].named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    dino.extract_keys([picture(48, 48)])
    assert ran == ["norm1"]


def test_a_short_side(home: Path) -> None:
    dino = Dino(home, side=64)
    (found,) = dino.extract_keys([picture(100, 203)])
    assert found.values.shape == (24, 8, 16) and found.size == (100, 203) and found.window is None
    small = torch.tensor(picture(100, 203).pixels).permute(2, 0, 1)[None] / 255
    small = F.interpolate(small, size=(64, 128), mode="bicubic", antialias=True).clamp(0, 1)
    exact = Dino(home)
    x, rope = exact._entering((small - 0.5) / 0.2)
    assert_close(found.values.flatten(1), exact._keys(x)[0], depth="network")
    assert rope is None and dino.provenance["side"] == 64


def test_a_card_may_say_how_it_is_used(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a", use={"side": 32, "positions": "bilinear"})
    dino = Dino(folder)
    assert (dino.side, dino.positions) == (32, "bilinear")
    other = Dino(folder, side=16, positions="bicubic")
    assert (other.side, other.positions) == (16, "bicubic")


def test_registers_have_their_own_rule(tmp_path: Path) -> None:
    dino = Dino(folder_of(tmp_path / "a", "vit_small_patch14_reg4_dinov2", img_size=84))
    assert dino.positions == "bicubic-antialias" and dino.patch == 14


def test_a_position_rule_that_is_none(home: Path) -> None:
    wrong: Any = "cubic"
    with pytest.raises(InputError, match="unknown position rule 'cubic'"):
        Dino(home, positions=wrong)


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Path:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(home / name, tmp_path / name)
    return tmp_path


def test_the_head_of_a_classifier_is_left_out(copy: Path, dino: Dino) -> None:
    state = load_file(copy / "model.safetensors")
    save_file(state | {"head.weight": torch.zeros(10, 24), "head.bias": torch.zeros(10)}, copy / "model.safetensors")
    image = picture(48, 48)
    assert torch.equal(Dino(copy, card=dino.card).extract_keys([image])[0].values, dino.extract_keys([image])[0].values)


def spoil(copy: Path, change: str) -> None:
    if spoil_model(copy, change, "cls_token", "mask_token"):
        return
    name, _, arguments = change.partition(" ")
    config = {"architecture": name, "model_args": json.loads(arguments or "{}")}
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ("truncated", InputError, "expected the weights of config.json's model"),
        ("no weights", MissingError, "there is none"),
        ("pickle", InputError, r"got pytorch_model\.bin; a pickle can run any code"),
        ("missing", InputError, "1 are missing, such as cls_token"),
        ("unexpected", InputError, "1 are unexpected, such as mask_token"),
        ("shape", InputError, "size mismatch for cls_token"),
        ("no config", MissingError, r"there is no config\.json"),
        ("broken config", InputError, r"expected JSON in .*config\.json"),
        ("vit_of_nobody", InputError, "got 'vit_of_nobody'"),
        ("hf-hub:timm/vit_small_patch8_224.dino", InputError, "expected the name of a timm model"),
        ('vit_small_patch8_224 {"wings": 2}', InputError, "cannot be built"),
        ("resnet18", InputError, "a ResNet that is built otherwise"),
        ('vit_tiny_patch16_224 {"class_token": false, "global_pool": "avg"}', InputError, "with a class token"),
    ],
)
def test_folders_that_cannot_be_read(copy: Path, dino: Dino, change: str, error: type[Exception], said: str) -> None:
    spoil(copy, change)
    with pytest.raises(error, match=said):
        Dino(copy, card=dino.card)
