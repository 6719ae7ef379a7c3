"""Models of random weights on disk, and what can be wrong with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from open_clip.model import CLIP
from pytest import MonkeyPatch
from safetensors.torch import load_file, save_file

from annofree.hub.cards import Card

__all__ = ["empty_hub", "plain_card", "spoil_model", "write_random_clip"]

_PLAIN: dict[str, Any] = {
    "name": "toy",
    "family": "none",
    "tier": "S0",
    "licence": "Apache-2.0",
    "trained_on": "nothing",
    "world": "paper",
    "files": {},
}


def plain_card(**fields: Any) -> Card:
    """Return the card of a model that was trained on nothing."""
    return Card(**_PLAIN | fields)


def empty_hub(monkeypatch: MonkeyPatch, folder: Path) -> Path:
    """Give an empty Hugging Face cache, which is returned, an empty store, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("ANNOFREE_HOME", str(folder / "home"))
    return folder / "hub"


def write_random_clip(folder: Path, dimension: int, vision: Mapping[str, Any], text: Mapping[str, Any], seed: int = 0) -> None:
    """Write a CLIP in open_clip's layout, without a card."""
    settings: dict[str, Any] = {"embed_dim": dimension, "vision_cfg": dict(vision), "text_cfg": dict(text)}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = CLIP(**settings).state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": settings}), encoding="utf-8")


def spoil_model(folder: Path, change: str, key: str, unexpected: str) -> bool:
    """Damage ``model.safetensors`` of a folder, at ``key`` or by a tensor more; tells whether the change is known.

    ``truncated``, ``no weights``, ``pickle`` (the same file by the name of one), ``missing``, ``unexpected`` or ``shape``;
    of ``config.json``: ``no config``, ``broken config`` or ``list``, one that is no object.
    """
    weights = folder / "model.safetensors"
    state = load_file(weights)
    if change == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif change == "no weights":
        weights.unlink()
    elif change == "pickle":
        weights.rename(folder / "pytorch_model.bin")
    elif change in ("missing", "unexpected", "shape"):
        wrong = {"missing": {}, "unexpected": {unexpected: torch.zeros(1)}, "shape": {key: torch.zeros(1, 1, 7)}}[change]
        kept = {k: v for k, v in state.items() if k != key} if change != "unexpected" else state
        save_file(kept | wrong, weights, {"format": "pt"})
    elif change in ("no config", "broken config", "list"):
        (folder / "config.json").unlink()
        if change != "no config":
            (folder / "config.json").write_text("{" if change == "broken config" else "[]", encoding="utf-8")
    else:
        return False
    return True
