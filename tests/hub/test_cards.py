import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.models import plain_card

from annofree.errors import InputError, MissingError
from annofree.hub.cards import BUNDLED, KINDS, TIERS, Card, find_bundled, hash_file, list_known_cards, read_bundled_card
from annofree.hub.license_policy import PERMISSIVE
from annofree.hub.open_clip_cards import find_open_clip_card


@pytest.fixture
def card(tmp_path: Path) -> Card:
    (tmp_path / "weights.safetensors").write_bytes(b"abc")
    made = plain_card(
        files={"weights.safetensors": hash_file(tmp_path / "weights.safetensors")},
        use={"side": 64, "templates": ["a {}"], "mean": [0.5, 0.25, 0.125]},
        figures={"top1": 0.5},
    )
    made.write(tmp_path)
    return made


def test_the_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert hash_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2


def test_a_card_is_read_as_it_was_written(card: Card, tmp_path: Path) -> None:
    assert Card.read(tmp_path) == card
    assert card.to_provenance() == {
        "name": "toy",
        "kind": "",
        "family": "none",
        "hub": "",
        "revision": "",
        "tier": "S0",
        "licence": "Apache-2.0",
        "code_licence": "unknown",
        "sha256": {"weights.safetensors": hash_file(tmp_path / "weights.safetensors")},
    }


def test_no_card(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MissingError, match=r"expected a model folder with card\.json at .*; there is none") as caught:
            Card.read(folder)
        assert str(folder) in str(caught.value)


def test_a_file_of_the_card_that_is_not_there(card: Card, tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(MissingError, match=r"the model toy needs weights\.safetensors beside its card") as caught:
        Card.read(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_one_changed_byte_is_noticed(card: Card, tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"abd")
    with pytest.raises(InputError, match=r"expected SHA-256 ba7816bf8f01\.\.\., got .*fetch or train the model again"):
        Card.read(tmp_path)


def test_a_file_without_a_hash_is_not_trusted(card: Card, tmp_path: Path) -> None:
    replace(card, files={"weights.safetensors": None}).write(tmp_path)
    with pytest.raises(InputError, match="is not the file of its card"):
        Card.read(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"name": "toy"}', '{"colour": "red"}', "\ud800"])
def test_what_is_no_card(text: str, tmp_path: Path) -> None:
    (tmp_path / "card.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=r"expected a model's card in .*card\.json, but it is not one"):
        Card.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tier": "S9"}, "expected the tier of toy to be one of S0, S1, S2, S3, S4, got 'S9'"),
        ({"kind": "llm"}, "expected the kind of toy to be one of clip, sam, dino, saliency, segmenter, got 'llm'"),
        ({"gate": "wall"}, "expected the gate of toy to be one of none, terms, got 'wall'"),
        ({"name": "../toy"}, "expected a model's name of letters"),
        ({"name": ""}, "expected a model's name of letters"),
        ({"files": {"model.pt": "0"}}, r"comes as a pickle \(model\.pt\), which may run code"),
        ({"files": {"pytorch_model.bin": None}}, r"comes as a pickle"),
        ({"files": {"../x.safetensors": None}}, "as plain names beside its card, got '../x.safetensors'"),
        ({"files": {"/x.safetensors": None}}, "as plain names"),
        ({"files": {"a\\x.safetensors": None}}, "as plain names"),
        ({"files": {"card.json": None}}, "as plain names"),
    ],
)
def test_bad_cards_are_refused(card: Card, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(card, **changes)


_KINDS = {
    "tiny-clip": "clip",
    "tiny-clip-vit": "clip",
    "tiny-sam": "sam",
    "tiny-dino": "dino",
    "tiny-found": "saliency",
    "tiny-zutis": "segmenter",
    "tiny-detector": "segmenter",
}


@pytest.mark.parametrize("name", BUNDLED)
def test_the_bundled_models_are_what_their_cards_say(name: str) -> None:
    card = Card.read(find_bundled(name))
    assert card.name == name and card.world == "emoji" and card.licence == "Apache-2.0"
    assert card.tier in TIERS and card.kind == _KINDS[name]
    inside = {p.name for p in find_bundled(name).iterdir() if p.suffix != ".py" and p.name != "__pycache__"}
    assert inside == {"card.json", *card.files}
    assert json.loads((find_bundled(name) / "card.json").read_text(encoding="utf-8"))["name"] == name
    assert read_bundled_card(name).code_licence in PERMISSIVE and read_bundled_card(name).size > 0


@pytest.mark.parametrize("card", list_known_cards().values(), ids=lambda c: c.name)
def test_every_known_card_says_what_matters(card: Card) -> None:
    assert list_known_cards()[card.name] is card
    assert card.kind in KINDS and card.licence and card.code_licence and card.trained_on
    assert any(name.endswith(".safetensors") for name in card.files)
    assert all(sha is None or re.fullmatch("[0-9a-f]{64}", sha) for sha in card.files.values())
    if card.name not in BUNDLED:
        assert card.link.startswith("https://")
        assert bool(card.hub) != (card.kind in ("saliency", "segmenter")) or card.name == "groupvit-gcc-redcaps"
        assert not card.hub or (re.fullmatch(r"[\w-]+/[\w.-]+", card.hub) and card.revision)
        assert not card.hub or card.size == 4 * card.parameters or abs(card.size / card.parameters - 4) < 0.01
    assert card.pinned == bool(card.pinned_by) and all(card.pinned for sha in card.files.values() if sha and card.hub)
    assert set(card.published) == ({card.address.rpartition("/")[2]} if card.address else set())
    assert bool(card.address) == (card.name not in BUNDLED and not card.hub)


def test_the_hub_ids_of_clip_are_those_of_open_clip() -> None:
    from open_clip import get_pretrained_cfg

    tags = {"openai": "openai", "laion-vit-b-32": "laion2b_s34b_b79k", "laion-vit-b-16": "laion2b_s34b_b88k"}
    clips = [c for c in list_known_cards().values() if c.family.startswith("open_clip ") and c.name not in BUNDLED]
    assert len(clips) == 14
    for card in clips:
        short = card.name.removeprefix("openai-").removeprefix("laion-")
        arch = short.replace("rn", "RN") if short.startswith("rn") else "ViT-" + short[4:].upper()
        arch = card.hub.removeprefix("timm/") if short.startswith("pe-") else arch
        theirs = get_pretrained_cfg(arch, "meta" if short.startswith("pe-") else tags.get(card.name, "openai"))
        assert theirs["hf_hub"] == card.hub + "/"
        assert bool(theirs.get("quick_gelu", False)) == card.use.get("quick_gelu", False)
        assert theirs.get("interpolation", "bicubic") in ("", card.preprocessing["interpolation"])
        assert list(theirs["mean"]) == card.preprocessing["mean"] and list(theirs["std"]) == card.preprocessing["std"]


@pytest.mark.parametrize(
    ("name", "width", "layers", "mlp", "depth"),  # of the image tower; the layers of the text tower
    [
        ("tipsv2-b-14", 768, 12, 3072, 12),
        ("tipsv2-l-14", 1024, 24, 4096, 12),
        ("tipsv2-so400m-14", 1152, 27, 4304, 27),
        ("siglip2-b-16-512", 768, 12, 3072, 12),
        ("siglip2-so400m-16-512", 1152, 27, 4304, 27),
    ],
)
def test_parameters_are_those_of_transformers(name: str, width: int, layers: int, mlp: int, depth: int) -> None:
    import transformers

    card, heads = list_known_cards()[name], 12 if width == 768 else 16
    tips = card.family.endswith("Tipsv2Model")
    vision: dict[str, Any] = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    text = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads, "intermediate_size": mlp}
    vision |= {"mlp_ratio": mlp / width} if tips else {"intermediate_size": mlp, "image_size": 512, "patch_size": 16}
    text |= {} if tips else {"vocab_size": 256000, "max_position_embeddings": 64, "projection_size": width}
    kind = "Tipsv2" if tips else "Siglip"
    with torch.device("meta"):
        model = getattr(transformers, f"{kind}Model")(
            getattr(transformers, f"{kind}Config")(vision_config=vision, text_config=text)
        )
    unreleased = 1 if tips else 0  # the temperature
    assert sum(p.numel() for p in model.parameters()) - unreleased == card.parameters


def test_the_hub_ids_and_licences_of_dino_are_those_of_timm() -> None:
    import timm

    dinos = [c for c in list_known_cards().values() if c.kind == "dino" and c.name not in BUNDLED]
    assert len(dinos) == 10
    for card in dinos:
        theirs = timm.get_pretrained_cfg(card.hub.removeprefix("timm/"))
        assert theirs is not None and theirs.hf_hub_id == card.hub
        assert theirs.license in (card.licence.lower(), "dinov3-license")
        assert card.gate == "none"
        assert theirs.input_size[-1] == card.preprocessing["side"] and list(theirs.mean) == card.preprocessing["mean"]


# Any weights of open_clip


def test_a_tag_of_open_clip_becomes_a_card_of_unknown_licence() -> None:
    card = find_open_clip_card("open_clip:ViT-B-16/datacomp_xl_s13b_b90k")
    assert (card.hub, card.licence, card.tier, card.pinned) == (
        "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K",
        "unknown",
        "S1",
        False,
    )
    assert card.family == "open_clip VisionTransformer" and card.use["quick_gelu"] is False
    resnet = find_open_clip_card("open_clip:RN50/openai")
    assert resnet.family == "open_clip ModifiedResNet" and resnet.use["quick_gelu"] is True
    assert resnet.hub == list_known_cards()["openai-rn50"].hub


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("open_clip:ViT-B-166/openai", "unknown architecture of open_clip 'ViT-B-166'; did you mean 'ViT-B-16'"),
        ("open_clip:ViT-B-16/openay", "unknown tag of open_clip's ViT-B-16 'openay'; did you mean 'openai'"),
        ("open_clip:ViT-B-16", "unknown tag of open_clip's ViT-B-16 ''"),
        ("open_clip:ViT-B-16-SigLIP/webli", "expected an architecture with open_clip's own towers"),
        ("open_clip:coca_ViT-B-32/laion2b_s13b_b90k", "expected an architecture with open_clip's own towers"),
    ],
)
def test_tags_that_cannot_be_used(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_open_clip_card(spec)


def test_a_tag_that_is_a_pickle() -> None:
    with pytest.raises(MissingError, match="open_clip has ViTamin-S/datacomp1b as a pickle only"):
        find_open_clip_card("open_clip:ViTamin-S/datacomp1b")
