"""``annofree doctor``: what this machine has, and what it lacks."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.models import empty_hub

from annofree.apps.cli import main
from annofree.datasets.emoji import world as emoji_world
from annofree.hub.cards import BUNDLED, list_known_cards
from annofree.hub.presets import list_presets
from annofree.testing.hub_cache import write_snapshot

Doctor = Callable[..., str]
doctor_module = import_module("annofree.pipelines.doctor")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return empty_hub(monkeypatch, tmp_path)


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["annofree", "doctor", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert (end.value.code, said.err) == (0, "")
        return said.out

    return run


def test_json_says_what_there_is(doctor: Doctor, cache: Path, tmp_path: Path) -> None:
    write_snapshot(
        cache, list_known_cards()["dino-vit-s-8"].hub, "d" * 40, dict.fromkeys(list_known_cards()["dino-vit-s-8"].files, b"x")
    )
    found: dict[str, Any] = json.loads(doctor("--json"))
    assert found["python"] == platform.python_version() and found["packages"]["torch"] == torch.__version__.split("+")[0]
    assert found["devices"][-1]["device"] == "cpu" and (found["memory"] is None or found["memory"] > 2**28)
    places = found["caches"]
    assert (places["hugging_face"]["path"], places["annofree"]["path"]) == (str(cache), str(tmp_path / "home"))
    assert places["hugging_face"]["offline"] is True and all(p["free"] > 0 and p["writable"] for p in places.values())
    assert found["models"] == [*BUNDLED, "dino-vit-s-8"]
    assert set(found["presets"]) == set(list_presets())
    assert found["presets"]["tiny"] == {"missing": [], "by_hand": [], "bytes": 0}
    assert found["presets"]["fast"] == {
        "missing": ["openai-vit-b-16", "openai-rn50", "sam2.1-tiny"],
        "by_hand": ["found", "zutis-coco-vit-b-16"],
        "bytes": 598_516_980 + 408_291_932 + 155_908_064,
    }


def test_words_say_what_each_preset_would_fetch(doctor: Doctor) -> None:
    lines = doctor().splitlines()
    assert "preset:       tiny: all here" in lines
    fetched = "would fetch about 1.2 GB: openai-vit-b-16, openai-rn50, sam2.1-tiny, dino-vit-s-8"
    assert f"preset:       fast: {fetched}; to be added by hand: found, zutis-coco-vit-b-16" in lines
    assert any(line.startswith("cache:        hugging face: ") and "HF_HUB_OFFLINE is set" in line for line in lines)


def test_what_is_missing_is_said(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emoji_world, "_FONTS", ())
    monkeypatch.setattr(doctor_module, "_PACKAGES", ("torch", "no-such-package"))
    monkeypatch.setattr(doctor_module.os, "access", lambda *_: False)
    monkeypatch.setattr(doctor_module.os, "sysconf", lambda *_: (_ for _ in ()).throw(ValueError))
    said = doctor()
    assert "no-such-package is not installed" in said and "CANNOT BE WRITTEN TO" in said
    assert "emoji font:   none" in said and "memory:       unknown size" in said


def test_devices_are_named(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        name, total_memory = "a GPU", 80 * 10**9

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: Properties)
    assert "device:       cuda:0 (a GPU, 80.0 GB)" in doctor().splitlines()
