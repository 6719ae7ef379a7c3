"""How many parameters cards say, against the networks that their libraries build; nothing is allocated."""

from __future__ import annotations

from math import prod
from typing import Any

import open_clip
import pytest
import timm
import torch
import transformers
from tests.support.text_supervised import list_tcl_shapes

from annofree.hub.cards import BUNDLED, Card, list_known_cards

CARDS = [card for card in list_known_cards().values() if card.name not in BUNDLED]
CLIPS = [card for card in CARDS if card.family.startswith("open_clip ")]
DINOS = [card for card in CARDS if card.kind == "dino"]


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("card", CLIPS, ids=lambda c: c.name)
def test_clip(card: Card) -> None:
    short = card.name.removeprefix("openai-").removeprefix("laion-")
    arch = short.replace("rn", "RN") if short.startswith("rn") else "ViT-" + short[4:].upper()
    config: Any = open_clip.get_model_config(card.hub.removeprefix("timm/") if short.startswith("pe-") else arch)
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    with torch.device("meta"):
        assert count(kind(**config)) == card.parameters


@pytest.mark.parametrize("card", DINOS, ids=lambda c: c.name)
def test_dino(card: Card) -> None:
    with torch.device("meta"):
        assert count(timm.create_model(card.hub.removeprefix("timm/"), pretrained=False, num_classes=0)) == card.parameters


SIZES = {"b": (768, 12, 12, [2, 5, 8, 11]), "l": (1024, 24, 16, [5, 11, 17, 23]), "h": (1280, 32, 16, [7, 15, 23, 31])}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("family", "name"), [("Sam", "sam-"), ("SamHQ", "sam-hq-")])
def test_sam(family: str, name: str, size: str) -> None:
    width, layers, heads, everywhere = SIZES[size]
    tower = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "global_attn_indexes": everywhere}
    decoder = {"vit_dim": width} if family == "SamHQ" else {}
    config = getattr(transformers, f"{family}Config")(vision_config=tower | {"mlp_dim": 4 * width}, mask_decoder_config=decoder)
    with torch.device("meta"):
        assert count(getattr(transformers, f"{family}Model")(config)) == list_known_cards()[name + size].parameters


def test_sam2() -> None:
    card = list_known_cards()["sam2.1-tiny"]
    with torch.device("meta"):
        tiny = transformers.Sam2VideoModel(transformers.Sam2VideoConfig())
    assert count(tiny) == card.parameters
    assert 0 < card.size - 4 * count(tiny) < 200_000  # the file has 4 bytes a number, and a header


def test_groupvit_has_the_running_statistics_of_its_projections_too() -> None:
    with torch.device("meta"):
        state = transformers.GroupViTModel(transformers.GroupViTConfig()).state_dict()
    count = sum(value.numel() for value in state.values() if value.is_floating_point())
    assert {list_known_cards()[f"groupvit-gcc-{data}"].parameters for data in ("redcaps", "yfcc")} == {count}


def test_tcl() -> None:
    assert sum(map(prod, list_tcl_shapes(768, 512).values())) == list_known_cards()["tcl"].parameters


def test_published_bytes() -> None:
    cards = list_known_cards()
    assert cards["sam2.1-tiny"].size == 155_908_064
    assert (cards["edgetam"].parameters, cards["edgetam"].size) == (13_900_000, 55_600_000)
