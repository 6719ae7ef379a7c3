"""What ZUTIS, SelfMask and FOUND are published as: files of random numbers in their layout, added, converted and used."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.support.models import empty_hub
from tests.support.released import fill_shapes, list_selfmask_shapes, list_zutis_shapes
from tests.support.text_supervised import fill_tcl

from annofree.errors import AnnofreeError, InputError
from annofree.features.saliency import read_found_head
from annofree.features.selfmask import SelfMask
from annofree.features.zutis_weights import load_zutis
from annofree.hub import store
from annofree.hub.bundles import add_bundle, write_bundle
from annofree.hub.cards import Card, find_bundled, hash_file, list_known_cards
from annofree.hub.catalogue import add_models
from annofree.hub.download import fetch, find
from annofree.hub.store import find_card
from annofree.structures import Image

ZUTIS = [name for name in list_known_cards() if name.startswith("zutis")]
SMALL = list_zutis_shapes(16, width=64, layers=2, text=32, side=64)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty_hub(monkeypatch, tmp_path)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Card:
    """The card of a released ZUTIS, as if it were a small one."""
    card = replace(list_known_cards()["zutis-coco-vit-b-16"], parameters=sum(map(prod, SMALL.values())))
    monkeypatch.setattr(store, "list_known_cards", lambda: {**list_known_cards(), card.name: card})
    return card


def refused(source: Path, words: str, name: str | None = None) -> None:
    with pytest.raises(AnnofreeError) as refusal:
        add_models(source, name=name)
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


def test_the_released_networks_have_as_many_numbers_as_their_cards_say() -> None:
    cards = list_known_cards()
    assert len(ZUTIS) == 4
    for name in ZUTIS:
        assert sum(map(prod, list_zutis_shapes(int(name[-2:])).values())) == cards[name].parameters
    for queries in (10, 20):
        assert sum(map(prod, list_selfmask_shapes(queries).values())) == cards[f"selfmask-nq{queries}"].parameters


def test_a_released_zutis_is_added_from_its_file_and_used(small: Card, tmp_path: Path) -> None:
    state = fill_shapes(SMALL)
    torch.save(state, tmp_path / "coco_vit_b_16.pt")
    (folder,) = add_models(tmp_path / "coco_vit_b_16.pt").values()  # known by its name
    kept = load_file(folder / "model.safetensors")
    assert kept.keys() == state.keys() and all(torch.equal(kept[name], state[name]) for name in state)
    card = find_card(small.name)
    assert card.published == {"coco_vit_b_16.pt": hash_file(tmp_path / "coco_vit_b_16.pt")}
    assert card.files == {"model.safetensors": hash_file(folder / "model.safetensors")}
    assert (card.licence, card.tier) == (small.licence, small.tier)
    network = load_zutis(folder, card=card)
    (seen,) = network.propose([Image(np.full((40, 64, 3), 90, np.uint8))])
    assert seen.masks.shape == (100, 4, 8) and seen.features.shape == (32, 4, 8)
    assert torch.equal(network.query_embed.weight, state["query_embed"])
    assert list(add_models(tmp_path / "coco_vit_b_16.pt", name=small.name)) == [small.name]  # twice is once


def test_what_was_added_by_hand_is_carried_on(small: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(fill_shapes(SMALL), tmp_path / "coco_vit_b_16.pt")
    add_models(tmp_path / "coco_vit_b_16.pt")
    write_bundle(fetch([find_card(small.name)]), tmp_path / "a.tar")
    empty_hub(monkeypatch, tmp_path / "there")
    assert [card.name for card in add_bundle(tmp_path / "a.tar")] == [small.name]
    local = find(find_card(small.name))
    assert local is not None and set(local.card.published) == {"coco_vit_b_16.pt"}


def test_a_released_selfmask_is_added_and_used(tmp_path: Path) -> None:
    torch.save(fill_shapes(list_selfmask_shapes(10), torch.float16), tmp_path / "selfmask_nq10.pt")
    refused(tmp_path / "selfmask_nq10.pt", "expected the file of selfmask-nq20, but selfmask_nq10.pt", "selfmask-nq20")
    (folder,) = add_models(tmp_path / "selfmask_nq10.pt").values()
    (found,) = SelfMask(folder, card=find_card("selfmask-nq10")).predict_masks([Image(np.full((24, 32, 3), 90, np.uint8))])
    assert found.soft.shape == (24, 32)
    (tmp_path / "selfmask_nq10.pt").rename(tmp_path / "mine.pt")
    refused(tmp_path / "mine.pt", "expected the 36,174,337 numbers of selfmask-nq20 in", "selfmask-nq20")


def test_the_published_head_of_found_is_known_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "decoder_weights.pt"
    weight, bias = torch.randn(1, 384, 1, 1, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5])
    torch.save({"decoder": {"weight": weight, "bias": bias}}, file)
    refused(file, "is not the published file: expected SHA-256 47ff2a4af3db")
    card = replace(list_known_cards()["found"], published={"decoder_weights.pt": hash_file(file)})
    monkeypatch.setattr(store, "list_known_cards", lambda: {**list_known_cards(), "found": card})
    (folder,) = add_models(file).values()
    head = read_found_head(folder / "model.safetensors")
    assert torch.equal(head[0], weight.flatten()) and float(head[1]) == 0.5


class Code:
    """What a pickle may hold beside tensors."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("ran-on-loading"),))


@pytest.mark.parametrize("held", [Code(), {"a": torch.zeros(3), "b": "words"}, {}, {"model": {}, "epoch": 3}, [torch.zeros(2)]])
def test_what_is_more_than_tensors_is_not_taken(held: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(held, tmp_path / "coca_vit_b_16.pt")
    refused(tmp_path / "coca_vit_b_16.pt", "expected tensors")
    assert not Path("ran-on-loading").exists() and find(find_card("zutis-coca-vit-b-16")) is None


def test_other_files(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(3)}, tmp_path / "mine.pt")
    refused(tmp_path / "mine.pt", "expected one of decoder_weights.pt, selfmask_nq20.pt, selfmask_nq10.pt, coco_vit_b_16.pt")
    refused(tmp_path / "mine.pt", "mine.pt may run code when loaded and is not taken; sam-b comes as config.json", "sam-b")
    refused(tmp_path / "mine.pt", "unknown model 'zutis'", "zutis")
    refused(tmp_path / "mine.pt", "expected the 134,458,368 numbers of zutis-coca-vit-b-16", "zutis-coca-vit-b-16")
    (tmp_path / "coco_vit_b_16.pt").write_bytes(b"<html>not found</html>")
    refused(tmp_path / "coco_vit_b_16.pt", "expected tensors alone in")
    nothing = {"w": torch.tensor([float("nan")] * 385)}
    torch.save(nothing, tmp_path / "imagenet_s919_vit_b_16.pt")
    refused(tmp_path / "imagenet_s919_vit_b_16.pt", "w has NaN")
    with pytest.raises(InputError, match="comes with annofree"):
        add_models(find_bundled("tiny-sam"))


def test_of_a_checkpoint_the_trained_weights_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = fill_tcl()
    card = replace(list_known_cards()["tcl"], parameters=sum(v.numel() for v in state.values()))
    monkeypatch.setattr(store, "list_known_cards", lambda: {**list_known_cards(), "tcl": card})
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {**state, "clip_text_encoder.w": torch.ones(3)}, "config": Code(), "step": 3}, "tcl.pth")
    (folder,) = add_models(Path("tcl.pth")).values()
    kept = load_file(folder / "model.safetensors")
    assert kept.keys() == state.keys() and all(torch.equal(kept[name], state[name]) for name in state)
    assert not Path("ran-on-loading").exists()


def test_what_is_no_checkpoint_of_tcl(tmp_path: Path) -> None:
    file = tmp_path / "tcl.pth"
    torch.save({"model": {"other.w": torch.ones(3)}}, file)
    refused(file, "expected weights called masker.... in")
    torch.save({"model": {"masker.w": torch.ones(3)}}, file)
    refused(file, "expected the 28,725,510 numbers of tcl in")
    torch.save({"model": {"masker.w": "words"}}, file)
    refused(file, "expected tensors by name, and nothing else")
    torch.save([torch.ones(3)], file)
    refused(file, "expected tensors by name, and nothing else")
    file.write_bytes(b"<html>not found</html>")
    refused(file, "expected a checkpoint of torch in")
