"""The benchmark of the frozen models, narrow: every part runs, gives what the plain model gives, and is counted rightly."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import Sam2VideoConfig, Sam2VideoModel, SamModel

from annofree.features.preprocessing import preprocess_image
from annofree.hub.cards import list_known_cards
from annofree.hub.presets import list_presets
from annofree.structures import Image
from annofree.testing.tolerances import assert_close

MODELS = (
    "openai-vit-b-16",
    "openai-rn50",
    "sam2.1-tiny",
    "dino-vit-s-8",
    "openai-rn50x64",
    "sam-b",
    "sam2.1-large",
)


def picture(height: int, width: int) -> Image:
    return Image(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def seen(benchmark: ModuleType, model: str, image: Image) -> Tensor:
    """The features of a narrow model of fixed random weights."""
    part = benchmark.all_parts()[model]
    torch.manual_seed(0)
    job = benchmark.JOBS[part.role](part, "cpu", torch.float32, True)
    with torch.inference_mode():
        found: Tensor = job(image)
    return found


def normalized(image: Image, model: str) -> Tensor:
    preprocessing = list_known_cards()[model].preprocessing
    mean, std = (torch.tensor(preprocessing[k]) for k in ("mean", "std"))
    return preprocess_image(image, image.size, mean, std)


def caught(module: nn.Module, of: nn.Module, x: Tensor) -> Tensor:
    """What a module within another gives when that one sees ``x``."""
    outputs: list[Tensor] = []
    handle = module.register_forward_hook(lambda *call: outputs.append(call[-1]))
    with torch.inference_mode():
        of(x)
    handle.remove()
    return outputs[0]


# the parts


def test_the_parts_are_those_of_the_presets(benchmark: ModuleType) -> None:
    parts = benchmark.all_parts()
    assert tuple(parts) == MODELS
    for name in benchmark.PRESETS:
        used = {card.name for role, card in list_presets()[name].find_cards().items() if role not in ("saliency", "zutis")}
        assert used == {p.model for p in parts.values() if name in p.presets}
    assert parts["openai-rn50x64"].use["boundary_side"] == 2048 and parts["openai-rn50"].use["boundary_side"] == 1024
    assert (parts["openai-vit-b-16"].use["dense"], parts["openai-vit-b-16"].use["dense_side"]) == ("surgery", 512)


@pytest.mark.parametrize("model", MODELS)
def test_every_part_is_measured(benchmark: ModuleType, model: str) -> None:
    found = benchmark.measure(benchmark.all_parts()[model], "cpu", "fp32", 3, True, 0)
    assert len(found.shape) == 3 and min(found.shape) > 0 and len(found.seconds) == 3
    assert 0 < found.spread.least <= found.spread.median <= found.spread.most
    assert found.flop > 1e5 and found.limit > 0 and found.peak > 1e8
    assert_close(found.fraction, found.flop / found.spread.median / found.limit)


def test_half_precision(benchmark: ModuleType) -> None:
    for model in ("openai-vit-b-16", "openai-rn50", "sam-b", "dino-vit-s-8"):
        parts = benchmark.all_parts()
        full, half = (benchmark.measure(parts[model], "cpu", dtype, 1, True, 0) for dtype in ("fp32", "bf16"))
        assert (half.shape, half.flop) == (full.shape, full.flop) and half.limit > 0


def test_no_weights_are_left_at_zero(benchmark: ModuleType) -> None:
    sam = SamModel(benchmark.sam_config("sam-b", True))
    before = {k: v.clone() for k, v in sam.named_parameters()}
    assert not before["vision_encoder.pos_embed"].any()
    for name, weights in benchmark.filled(sam).named_parameters():
        assert weights.any() and (torch.equal(weights, before[name]) or not before[name].any())


def test_true_architectures(benchmark: ModuleType) -> None:
    cards = list_known_cards()
    with torch.device("meta"):
        assert _count(SamModel(benchmark.sam_config("sam-b", False))) == cards["sam-b"].parameters
        for model in ("sam2.1-tiny", "sam2.1-large"):  # as released, with what only videos need
            config = Sam2VideoConfig(vision_config=benchmark.sam_config(model, False).vision_config)
            assert _count(Sam2VideoModel(config)) == pytest.approx(cards[model].parameters, rel=2e-3)


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# the features


@pytest.mark.parametrize("model", ["openai-rn50", "openai-rn50x64"])
def test_boundaries_are_the_plain_towers(benchmark: ModuleType, model: str) -> None:
    image, part = picture(64, 64), benchmark.all_parts()[model]
    torch.manual_seed(0)
    visual = benchmark.random_tower(part, "cpu", torch.float32, True).visual
    expected = caught(visual.layer3, visual, normalized(image, model))[0]
    assert expected.std() > 0
    assert_close(seen(benchmark, model, image), expected, depth="network")


def test_embeddings_are_the_plain_encoders(benchmark: ModuleType) -> None:
    torch.manual_seed(0)
    sam = benchmark.filled(SamModel(benchmark.sam_config("sam-b", True)))
    image = picture(64, 64)
    with torch.inference_mode():
        expected = sam.vision_encoder(normalized(image, "sam-b"))[0][0]
    assert_close(seen(benchmark, "sam-b", image), expected, depth="network")


def test_keys_are_the_plain_transformers(benchmark: ModuleType) -> None:
    torch.manual_seed(0)
    plain = timm.create_model("vit_small_patch8_224", num_classes=0, embed_dim=32, depth=2, num_heads=2)
    vit: Any = benchmark.filled(plain)
    image = picture(224, 224)
    keys = caught(vit.blocks[-1].attn.qkv, vit, normalized(image, "dino-vit-s-8"))[0, 1:, 32:64]
    assert_close(seen(benchmark, "dino-vit-s-8", image), keys.T.reshape(32, 28, 28), depth="network")


# the arithmetic


def test_the_arithmetic_of_a_vit_is_counted(benchmark: ModuleType) -> None:
    n, c, blocks, patch, d = 4 * 6, 32, 8, 16, 32
    t = n + 1
    ordinary = blocks * (2 * t * 12 * c**2 + 4 * t**2 * c)
    surgery = 6 * (2 * t * 3 * c**2 + 4 * t**2 * c + 2 * t * c**2)
    expected = 2 * n * 3 * patch**2 * c + ordinary + surgery + 2 * t * c * d
    found = benchmark.measure(benchmark.all_parts()["openai-vit-b-16"], "cpu", "fp32", 1, True, 0)
    assert found.shape == (32, 4, 6) and found.flop == expected


def test_the_arithmetic_of_a_resnet_is_counted(benchmark: ModuleType) -> None:
    counts: list[int] = []

    def note(conv: nn.Module, _: Any, out: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        counts.append(2 * out.numel() * conv.weight[0].numel())

    tower = benchmark.random_tower(benchmark.all_parts()["openai-rn50"], "cpu", torch.float32, True)
    for conv in (m for m in tower.visual.modules() if isinstance(m, nn.Conv2d)):
        conv.register_forward_hook(note)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        tower.extract_conv4(torch.zeros(1, 3, 64, 96))
    assert counter.get_total_flops() == sum(counts) > 0
    found = benchmark.measure(benchmark.all_parts()["openai-rn50"], "cpu", "fp32", 1, True, 0)
    assert found.flop == sum(counts)


# the command


def test_it_prints_a_table_and_writes_its_numbers(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "features.json"
    options = ["--small", "--parts", "dino-vit-s-8", "--device", "cpu", "--repeats", "3", "--json", str(written)]
    benchmark.main(options)
    printed = capsys.readouterr().out
    assert "dino-vit-s-8 keys" in printed and "pictures/s" in printed and "32 x 8 x 12" in printed
    record = json.loads(written.read_text())
    assert record["settings"] == {"device": "cpu", "dtype": "fp32", "repeats": 3, "seed": 0, "small": True}
    assert record["machine"]["threads"] >= 1
    (part,) = record["parts"]
    assert (part["model"], part["presets"], part["shape"]) == ("dino-vit-s-8", ["fast", "paper", "best"], [32, 8, 12])
    assert len(part["seconds"]) == 3 and part["peak"] > 1e8 and part["fraction"] > 0
    assert_close(part["pictures_per_second"], 1 / part["spread"]["median"])
    assert_close(part["cells_per_second"], 96 * part["pictures_per_second"])


def test_what_cannot_be_measured_is_refused(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"expected parts among openai-vit-b-16, .*, got found"):
        benchmark.main(["--parts", "found", "--device", "cpu"])
    with pytest.raises(SystemExit):
        benchmark.main(["--device", "cpu", "--dtype", "tf32"])
    assert "tf32 is a number format of GPUs" in capsys.readouterr().err
