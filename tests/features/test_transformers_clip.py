"""TIPSv2 and SigLIP 2 in miniature, with random weights in the released layouts, against transformers' own forward passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.nn import functional as F
from transformers import SiglipConfig, SiglipModel, Tipsv2Config, Tipsv2Model

from annofree.errors import InputError, MissingError
from annofree.features.clip import Clip
from annofree.features.transformers_clip import find_family, load_transformers_clip
from annofree.hub.cards import Card
from annofree.structures import Image, Vocabulary
from annofree.testing.architectures import train_byte_tokenizer
from annofree.testing.tolerances import assert_close

WORDS = ["<pad>", "<eos>", "<unk>", "a", "photo", "of", "dog", "cat", "."]
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}


def shuffle(model: Any) -> Any:
    """Random weights, so that no scale is one and no bias zero; the same whatever ran before."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def build_tips() -> Any:
    vision = {**SIZES, "image_size": 56, "patch_size": 14}
    text = {**TEXT, "vocab_size": len(WORDS), "max_position_embeddings": 12}
    model = shuffle(Tipsv2Model(Tipsv2Config(vision_config=vision, text_config=text)))
    model.temperature.data.fill_(model.config.temperature_init_value)  # not released: it keeps its initial value
    return model


def build_siglip() -> Any:
    vision = {**SIZES, "intermediate_size": 64, "image_size": 64, "patch_size": 16}
    text = {**TEXT, "vocab_size": len(WORDS), "max_position_embeddings": 12, "projection_size": 32}
    model = shuffle(SiglipModel(SiglipConfig(vision_config=vision, text_config=text)))
    model.logit_scale.data.fill_(4.7)
    return model


BUILD: dict[str, Callable[[], Any]] = {"tipsv2": build_tips, "siglip": build_siglip}
PIXELS = {"tipsv2": (0.0, 1.0), "siglip": (0.5, 0.5)}
NATIVE = {"tipsv2": 56, "siglip": 64}
FIRST = {"tipsv2": 2, "siglip": 0}  # a class token and a register, or none


def save(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    state = {k: v for k, v in load_file(folder / "model.safetensors").items() if k != "temperature"}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.enable_padding(length=3)  # what a file says of padding does not matter
    words.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module", params=sorted(BUILD))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def theirs(kind: str) -> Any:
    return BUILD[kind]()


@pytest.fixture(scope="module")
def folder(kind: str, theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(theirs, tmp_path_factory.mktemp(kind))


def build_card(name: str) -> Card:
    return Card(name, f"transformers {name}", "S1", "Apache-2.0", "nothing", "none", {}, kind="clip")


@pytest.fixture(scope="module")
def clip(kind: str, folder: Path) -> Clip:
    return Clip(folder, card=build_card(kind), use={"templates": ["a photo of a {}."]})


def draw(size: tuple[int, int], seed: int = 0) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8), str(seed))


def prepare(kind: str, image: Image, size: tuple[int, int]) -> Tensor:
    """Pixels as the release prepares them: bilinear with antialiasing, in 0 .. 1 or in -1 .. 1."""
    x = torch.tensor(image.pixels).permute(2, 0, 1)[None].float() / 255
    x = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
    return (x - PIXELS[kind][0]) / PIXELS[kind][1]


@torch.inference_mode()
def test_images_are_as_transformers_encodes_them(kind: str, clip: Clip, theirs: Any) -> None:
    side = NATIVE[kind]
    for image in (draw((side, side)), draw((90, 70), 1)):
        (found,) = clip.encode_image([image])
        expected = theirs.get_image_features(prepare(kind, image, (side, side))).pooler_output[0]
        assert_close(found, F.normalize(expected, dim=0), depth="network")
    squares = torch.rand(2, 3, 40, 40)
    assert clip.encode_squares(squares).shape == (2, 32)


@torch.inference_mode()
def test_texts_are_as_transformers_encodes_them(kind: str, clip: Clip, theirs: Any) -> None:
    found = clip.encode_text(Vocabulary.of("dog, Cat"))
    rows = [[3, 4, 5, 3, 6, 8], [3, 4, 5, 3, 7, 8]]  # lower case, so "Cat" is known
    ends = [1] if kind == "siglip" else []
    ids = torch.tensor([(row + ends + [0] * 12)[:12] for row in rows])
    mask = {"attention_mask": (ids != 0).long()} if kind == "tipsv2" else {}
    expected = theirs.get_text_features(ids, **mask).pooler_output
    assert_close(found, F.normalize(expected, dim=1), depth="network")


@torch.inference_mode()
def test_logits_are_those_of_transformers(kind: str, folder: Path, theirs: Any) -> None:
    loaded, image = load_transformers_clip(folder), draw((NATIVE[kind], NATIVE[kind]))
    ids = loaded.tokenizer(["a photo of a dog.", "a cat"])
    mask = {"attention_mask": (ids != 0).long()} if kind == "tipsv2" else {}
    x = prepare(kind, image, (NATIVE[kind], NATIVE[kind]))
    expected = theirs(input_ids=ids, pixel_values=x, **mask).logits_per_image[0]
    whole, words = (F.normalize(v, dim=1) for v in (loaded.tower.encode_image(x), loaded.encode_tokens(ids)))
    bias = float(theirs.logit_bias) if kind == "siglip" else 0.0
    assert_close(loaded.scale * (words @ whole[0]) + bias, expected, depth="network")


@torch.inference_mode()
@pytest.mark.parametrize("size", [(64, 64), (56, 112), (128, 96)])
def test_the_last_tokens_are_those_of_transformers(kind: str, clip: Clip, theirs: Any, size: tuple[int, int]) -> None:
    stride, x = clip._tower.stride, torch.rand(2, 3, *size)
    rows, columns = size[0] // stride, size[1] // stride
    cut = x[..., : rows * stride, : columns * stride]
    more = {"interpolate_pos_encoding": True} if kind == "siglip" else {}
    tokens = theirs.vision_model(cut, **more).last_hidden_state[:, FIRST[kind] :]
    found = clip._tower.extract_patches(x)
    assert found.shape == (2, 32, rows, columns)
    assert_close(found, tokens.transpose(1, 2).reshape(2, 32, rows, columns), depth="network")


@torch.inference_mode()
def test_the_value_path_is_a_last_block_whose_tokens_attend_to_themselves_alone(kind: str, clip: Clip, theirs: Any) -> None:
    """The slow twin: transformers' own last block, each token given to it alone, then what brings tokens to texts."""
    x = torch.rand(1, 3, NATIVE[kind], NATIVE[kind])
    visual, tower = theirs.vision_model, clip._tower
    blocks = visual.encoder.layer if kind == "tipsv2" else visual.encoder.layers
    tokens = visual.embeddings(x)
    for block in blocks[:-1]:
        tokens = block(tokens, None)
    alone = torch.cat([blocks[-1](token[:, None], None) for token in tokens.unbind(1)], 1)[:, FIRST[kind] :]
    if kind == "tipsv2":
        expected = visual.layernorm(alone)
    else:
        expected = torch.stack([visual.head(visual.post_layernorm(token[:, None])) for token in alone.unbind(1)], 1)
    assert_close(tower.encode_dense(x, "value+mlp")[0].flatten(1).T, expected[0], depth="network")
    maps = {path: tower.encode_dense(x, path) for path in tower.paths}
    assert tower.paths == ("value", "value+mlp", "attention") and tower.default_path == "value+mlp"
    assert not torch.allclose(maps["value"], maps["value+mlp"]) and not torch.allclose(maps["attention"], maps["value+mlp"])


def test_maps_regions_and_presence(kind: str, clip: Clip) -> None:
    image = draw((80, 120))
    (dense,) = clip.encode_dense([image])
    rows = NATIVE[kind] // clip._tower.stride
    assert dense.values.shape == (32, rows, round(rows * 1.5)) and dense.size == (80, 120)
    assert_close(dense.values.norm(dim=0), torch.ones(dense.values.shape[1:]))
    boxes = np.array([[0, 0, 60, 80], [10, 10, 30, 30]], np.float32)
    assert clip.encode_crops(image, boxes, pooled=True).shape == clip.encode_crops(image, boxes, pooled=False).shape == (2, 32)
    words = clip.encode_text(Vocabulary.of("dog, cat"))
    presence = clip.score_presence(clip.encode_image([image])[0], dense, words)
    assert presence.shape == (2,) and torch.isfinite(presence).all()
    assert torch.isfinite(clip.with_prompts("name").encode_null_text()).all(), "a text that says nothing has a feature"
    (keys,) = clip.extract_keys([image])
    assert keys.values.shape == dense.values.shape
    with pytest.raises(InputError, match="conv4_x"):
        clip.encode_boundaries([image])
    with pytest.raises(InputError, match="surgery"):
        clip.encode_dense([image], "surgery")


def test_half_precision_stays_near(folder: Path, kind: str, clip: Clip) -> None:
    half = Clip(folder, card=build_card(kind), dtype=torch.bfloat16)
    found, expected = (c.encode_image([draw((60, 60))])[0] for c in (half, clip))
    assert found.dtype == torch.float32 and float(found @ expected) > 0.99


def test_folders_that_cannot_be_read(folder: Path, kind: str, tmp_path: Path) -> None:
    assert find_family(folder) == kind and find_family(tmp_path) is None
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "florence"}))
    with pytest.raises(InputError, match=r"florence.*siglip"):
        find_family(tmp_path)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(MissingError, match=r"model\.safetensors"):
        load_transformers_clip(tmp_path)
    state = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in state.items() if "norm" not in k}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="missing"):
        load_transformers_clip(tmp_path)
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(MissingError, match=r"tokenizer\.json"):
        load_transformers_clip(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="tokenizer"):
        load_transformers_clip(tmp_path)
    with pytest.raises(InputError, match="dtype"):
        load_transformers_clip(folder, dtype=torch.float64)


def test_the_sentencepiece_model_that_tipsv2_comes_with(tmp_path: Path) -> None:
    """The reference is the library that wrote the file; texts are lower-cased, none has an end, and zeros follow."""
    save(build_tips(), tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.model").write_bytes(train_byte_tokenizer())
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["vocab_size"] = 300
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = load_file(tmp_path / "model.safetensors")
    (table,) = (k for k in state if "token_embedding" in k)
    save_file(state | {table: torch.randn(300, 32)}, tmp_path / "model.safetensors", {"format": "pt"})
    theirs = sentencepiece.SentencePieceProcessor(str(tmp_path / "tokenizer.model"))
    texts = ["A photo of a dog", "Cats of a \u00e9lan"]
    found = load_transformers_clip(tmp_path).tokenizer(texts)
    expected = [(theirs.encode(t.lower()) + [0] * 12)[:12] for t in texts]
    assert found.tolist() == expected
