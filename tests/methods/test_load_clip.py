"""The CLIP of an index, by the name of a card or of a preset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import annofree.features.clip
from annofree.errors import InputError
from annofree.hub.cards import Card
from annofree.methods.load_clip import load_clip
from annofree.testing.fakes import FakeClip


def test_the_clip_of_a_preset_or_of_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[str, dict[str, Any]]] = []

    def load(folder: Path, device: str, *, card: Card, use: dict[str, Any]) -> FakeClip:
        assert (folder / "open_clip_model.safetensors").is_file()
        loaded.append((f"{card.name} on {device}", use))
        return FakeClip()

    monkeypatch.setattr(annofree.features.clip, "Clip", load)
    for spec in ("tiny", "tiny-clip", "tiny-clip+tiny-sam"):
        load_clip(spec, "cpu", {"whole": "crop"})
    assert loaded == [("tiny-clip on cpu", {"whole": "crop"})] * 3
    with pytest.raises(InputError, match=r"expected a CLIP.*tiny-sam, a sam"):
        load_clip("tiny-sam", "cpu", {})
    with pytest.raises(InputError, match="unknown model 'tinny'"):
        load_clip("tinny", "cpu", {})
