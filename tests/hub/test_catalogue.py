"""Models by name, as Python asks for them; what the commands say of them is in tests/apps/test_models.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from annofree.errors import InputError
from annofree.hub.bundles import write_bundle
from annofree.hub.cards import BUNDLED, list_known_cards
from annofree.hub.catalogue import add_models, bundle_models, find_cards, list_models, pull_models, verify_models
from annofree.hub.download import fetch
from annofree.hub.presets import list_presets


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, an empty store, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("ANNOFREE_HOME", str(tmp_path / "home"))


def test_all_are_listed_and_the_bundled_ones_are_here() -> None:
    listed = {model.name: model for model in list_models()}
    assert set(listed) == set(list_known_cards())
    assert {name for name, model in listed.items() if model.present} == set(BUNDLED)


def test_a_name_stands_for_a_model_or_for_those_of_a_preset() -> None:
    names = [card.name for card in find_cards(["tiny-sam", "tiny", "tiny-sam"])]
    assert names[0] == "tiny-sam" and set(names) == {card.name for card in list_presets()["tiny"].find_cards().values()}
    assert len(names) == len(set(names))
    with pytest.raises(InputError, match="unknown model or preset 'tinny'; did you mean 'tiny'"):
        find_cards(["tinny"])


def test_what_is_here_is_verified_and_what_is_not_is_told_where_it_was_named() -> None:
    assert {found.name for found in verify_models()} == set(BUNDLED) and all(found.ok for found in verify_models())
    (missing,) = verify_models(["sam-h"])
    assert (missing.ok, missing.text) == (False, "not on this machine")


def test_a_model_that_no_hub_has_is_left_to_people() -> None:
    preset = next(p for p in list_presets().values() if p.name != "tiny" and any(not c.hub for c in p.find_cards().values()))
    by_hand = {card.name for card in preset.find_cards().values() if not card.hub}
    with pytest.raises(Exception, match="not on this machine") as refusal:
        pull_models([preset.name])
    assert not any(f"{name} (" in str(refusal.value) for name in by_hand)
    assert [local.card.name for local in pull_models(["tiny-clip"]).models] == ["tiny-clip"]


def test_bundled_models_are_neither_bundled_nor_added_again(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected models to bundle, got tiny-sam, tiny, which comes with annofree wherever"):
        bundle_models(["tiny-sam", "tiny"], tmp_path / "a.tar")
    write_bundle(fetch(find_cards("tiny-sam")), tmp_path / "a.tar")
    with pytest.raises(InputError, match="comes with annofree"):
        add_models(tmp_path / "a.tar")
    with pytest.raises(InputError, match="expected --name with a folder or a file only"):
        add_models(tmp_path / "a.tar", name="tiny-sam")


def test_one_name_is_taken_as_a_list_of_one() -> None:
    assert [card.name for card in find_cards("tiny-sam")] == ["tiny-sam"]
    assert find_cards("tiny") == find_cards(["tiny"])
    with pytest.raises(InputError, match=r"unknown model or preset 'tinny'; did you mean 'tiny'"):
        find_cards("tinny")
