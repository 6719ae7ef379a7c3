"""Cards against a hub on this machine that says the same, and then something else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from tests.support.loopback_hub import LoopbackHub, point_to, serve_hub

from annofree.hub import store
from annofree.hub.cards import Card, list_known_cards

FILES = {"config.json": b"{}", "model.safetensors": b"w" * 1000}
SHA = hashlib.sha256(FILES["model.safetensors"]).hexdigest()


@pytest.fixture
def cards() -> dict[str, Card]:
    """A card without a pin and one with, of small files."""
    known = list_known_cards()
    free = replace(known["sam-l"], size=1000)
    pinned = replace(known["sam-b"], size=1002, revision="a" * 40, files={"config.json": None, "model.safetensors": SHA})
    return {"sam-l": free, "sam-b": pinned}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cards: dict[str, Card]) -> Iterator[LoopbackHub]:
    monkeypatch.setattr(store, "list_known_cards", lambda: {**list_known_cards(), **cards})
    with serve_hub() as served:
        for card in cards.values():
            served.publish(card.hub, FILES, "a" * 40)
            served.licences[card.hub] = "apache-2.0"
        point_to(monkeypatch, served.hub, tmp_path)
        yield served


def compare(benchmark: ModuleType, capsys: pytest.CaptureFixture[str], *names: str) -> tuple[int, list[str]]:
    code = benchmark.main(list(names))
    return code, capsys.readouterr().out.splitlines()


def test_what_is_right(hub: LoopbackHub, benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = compare(benchmark, capsys, "sam-b", "sam-l", "found")
    assert code == 0 and lines == [
        "sam-b: as its card says",
        f"sam-l: main is {'a' * 40}, model.safetensors {SHA}",
        "found: on no hub",
    ]
    assert not any(request.host == "cdn" for request in hub.requests)


def test_what_is_not(
    hub: LoopbackHub, cards: dict[str, Card], benchmark: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.publish(cards["sam-b"].hub, FILES | {"model.safetensors": b"v" * 1200}, "b" * 40)
    hub.publish(cards["sam-l"].hub, {"config.json": b"{}"})
    hub.licences[cards["sam-b"].hub] = "mit"
    hub.faults["gate"] = True
    code, (pinned, free, *rest) = compare(benchmark, capsys, "sam-b", "sam-l")
    assert code == 1 and not rest
    for word in ("model.safetensors has SHA-256 ", "its card says " + SHA, "has 1,202 bytes to fetch, its card says 1,002"):
        assert word in pinned
    assert "is gated, its card says none" in pinned and "has the licence mit, its card says Apache-2.0" in pinned
    assert f"main is {'b' * 40}" in pinned and "lacks model.safetensors" in free


def test_a_hub_that_does_not_answer(
    hub: LoopbackHub, benchmark: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    del hub.repos["facebook/sam-vit-large"]
    assert "sam-l: cannot be compared: " in compare(benchmark, capsys, "sam-l")[1][0]
    point_to(monkeypatch, "http://127.0.0.1:9", tmp_path)
    code, lines = compare(benchmark, capsys, "sam-b", "sam-l")
    assert code == 1 and [line.split(": ")[:2] for line in lines] == [
        ["sam-b", "cannot be compared"],
        ["sam-l", "cannot be compared"],
    ]
