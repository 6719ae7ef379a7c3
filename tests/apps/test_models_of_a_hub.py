"""From a hub to overlays, as people go: pull, run without network, carry to a machine that never had one, and run there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from huggingface_hub import constants
from tests.support.cli import Cli
from tests.support.hub_repositories import build_repository
from tests.support.loopback_hub import LoopbackHub, point_to, serve_hub

from annofree.hub import cards as cards_module
from annofree.hub import store
from annofree.hub.cards import Card
from annofree.hub.presets import Preset, list_presets

MODELS = "openai-vit-b-16+openai-rn50+sam2.1-tiny"
NOBODY = "http://127.0.0.1:9"
PRESETS = [preset for name, preset in list_presets().items() if name != "tiny"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackHub]:
    """A hub with all models of the presets, each at the commit of its card; the hashes of the real ones are not looked at."""
    known = {n: replace(c, files=dict.fromkeys(c.files)) for n, c in cards_module.list_known_cards().items()}
    known = {n: replace(c, use={**c.use, "boundary_side": 128, "dense_side": 128}) for n, c in known.items()}  # to be quick
    known |= {n: c for n, c in cards_module.list_known_cards().items() if n.startswith("tiny")}
    monkeypatch.setattr(store, "list_known_cards", lambda: known)
    with serve_hub() as served:
        for card in known.values():
            if card.hub and any(card.name in map(str, vars(preset).values()) for preset in PRESETS):
                served.publish(card.hub, build_repository(card), card.revision if card.pinned else "")
        point_to(monkeypatch, served.hub, tmp_path / "here")
        yield served


def list_fetched(preset: Preset) -> list[Card]:
    return [card for card in preset.find_cards().values() if card.hub]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.name)
def test_every_preset_is_pulled_carried_and_added(
    hub: LoopbackHub, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, preset: Preset
) -> None:
    fetched = {card.name for card in list_fetched(preset)}
    by_hand = [card for card in preset.find_cards().values() if not card.hub]
    said = cli("models", "pull", preset.name)
    assert said.code == 0, said.err
    lines = dict(line.split(": ", 1) for line in said.out.splitlines())
    assert set(lines) == fetched | {card.name for card in by_hand}
    assert all(lines[card.name] == f"on no hub; {card.explain_adding()}" for card in by_hand)
    asked = {request.path.rpartition("/")[2] for request in hub.take_requests() if "/resolve/" in request.path}
    assert asked == {name for card in list_fetched(preset) for name in card.files}

    out = tmp_path / "models.tar"
    said = cli("models", "bundle", preset.name, "--out", out)
    assert said.code == 0 and hub.take_requests() == []
    assert [line.split(": ")[:2] for line in said.out.splitlines()[1:]] == [["left out", card.name] for card in by_hand]

    point_to(monkeypatch, NOBODY, tmp_path / "there")
    said = cli("models", "add", "--from", out)
    assert said.code == 0 and {line.partition(": ")[0] for line in said.out.splitlines()} == fetched
    assert cli("models", "verify", *fetched).code == 0


def test_the_models_of_a_preset_run_on_a_machine_that_never_had_network(
    hub: LoopbackHub, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pixels = np.full((64, 96, 3), 220, np.uint8)
    pixels[16:48, 16:48] = 30, 60, 200
    PIL.Image.fromarray(pixels).save(tmp_path / "block.png")
    call = ("segment", tmp_path / "block.png", "--classes", "dog", "--models", MODELS, "--policy", "all", "--quiet")
    assert cli("models", "pull", "fast").code == 0 and hub.take_requests() != []
    said = cli(*call, "--out", tmp_path / "first")
    assert said.code == 0 and hub.take_requests() == [], said.err
    cli("models", "bundle", "fast", "--out", tmp_path / "fast.tar")
    point_to(monkeypatch, NOBODY, tmp_path / "there")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    cli("models", "add", "--from", tmp_path / "fast.tar")
    there = cli(*call, "--out", tmp_path / "there-out")
    assert there.code == 0, there.err
    first, other = (json.loads((tmp_path / name / "annotations.json").read_text()) for name in ("first", "there-out"))
    assert first["annotations"] == other["annotations"] and first["images"] == other["images"]


@pytest.mark.parametrize(
    ("faults", "words"),
    [({"status": 503}, "answered 503, it is down or busy"), ({"portal": True}, "a login page"), ({"gate": True}, "its terms")],
)
def test_a_fault_is_one_line_and_exit_code_2(hub: LoopbackHub, cli: Cli, faults: dict[str, object], words: str) -> None:
    hub.faults = faults
    said = cli("models", "pull", "fast")
    assert (said.code, said.out) == (2, "") and said.err.startswith("annofree: ") and said.err.count("\n") == 1
    assert words in said.err
