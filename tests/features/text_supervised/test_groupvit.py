"""GroupViT read from the inside, against what transformers' own model says at the size that it was trained at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.models import plain_card, spoil_model
from tests.support.text_supervised import save_groupvit
from torch.nn import functional as F
from transformers import GroupViTModel

from annofree.errors import AnnofreeError
from annofree.features.text_supervised.groupvit import GroupVit
from annofree.structures import Vocabulary
from annofree.testing.tolerances import assert_close

NAMES = ("dog", "traffic light", "tv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place: Path = tmp_path_factory.mktemp("groupvit")
    save_groupvit(place)
    return place


@pytest.fixture(scope="module")
def network(folder: Path) -> GroupVit:
    return GroupVit(folder, card=plain_card())


def random_pixels(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_logits_and_segmentation_are_those_of_transformers(folder: Path, network: GroupVit) -> None:
    model, x = GroupViTModel.from_pretrained(folder).eval(), random_pixels(224, 224)
    ids = network._tokenizer([f"a photo of a {name}." for name in NAMES])
    with torch.inference_mode():
        said: Any = model(input_ids=ids, pixel_values=x, output_segmentation=True)
    groups, whole, shares = network.group(x)
    words, scale = network.encode_text(Vocabulary.of(NAMES)), float(model.logit_scale.detach().exp())
    assert_close(network.scale, scale)
    assert_close(scale * whole @ words.T, said.logits_per_image, depth="network")
    assert_close(shares.sum(1), torch.ones(2, 14, 14), depth="network")
    place = F.interpolate(shares, size=(224, 224), mode="bilinear", align_corners=False)
    logits = torch.einsum("bgk,bghw->bkhw", scale * groups @ words.T, place)
    assert float(said.segmentation_logits.std()) > 0
    assert_close(scale * logits, said.segmentation_logits, depth="network")


def test_any_size_of_whole_patches_by_interpolated_positions(network: GroupVit) -> None:
    one, other = network.group(random_pixels(224, 224)), network.group(random_pixels(48, 80))
    assert [tuple(part.shape) for part in one] == [(2, 8, 16), (2, 16), (2, 8, 14, 14)]
    assert [tuple(part.shape) for part in other] == [(2, 8, 16), (2, 16), (2, 8, 3, 5)]
    before = network._model.vision_model.embeddings.position_embeddings.clone()
    again = network.group(random_pixels(224, 224))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))  # another size leaves nothing behind
    assert torch.equal(before, network._model.vision_model.embeddings.position_embeddings)


def test_the_scale_is_held_below_100(network: GroupVit) -> None:
    kept = network._model.logit_scale.data.clone()
    network._model.logit_scale.data.fill_(np.log(500))
    assert network.scale == 100
    network._model.logit_scale.data.copy_(kept)


@pytest.mark.parametrize("change", ["truncated", "no weights", "pickle", "missing", "unexpected", "shape", "broken config"])
def test_what_is_no_groupvit_is_refused_in_one_line(change: str, tmp_path: Path) -> None:
    save_groupvit(tmp_path)
    assert spoil_model(tmp_path, change, "visual_projection.0.weight", "other")
    with pytest.raises(AnnofreeError, match="expected"):
        GroupVit(tmp_path, card=plain_card())


def test_a_tokenizer_that_does_not_fit(tmp_path: Path) -> None:
    save_groupvit(tmp_path, vocab_size=1000)
    with pytest.raises(AnnofreeError, match="knows 1000 tokens, but CLIP has 49408"):
        GroupVit(tmp_path, card=plain_card())


def test_provenance_is_that_of_the_card(network: GroupVit) -> None:
    assert json.loads(json.dumps(network.provenance))["name"] == "toy" and network.remarks(Vocabulary.of(NAMES)) == []
