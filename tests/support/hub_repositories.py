"""Repositories of a hub in the layouts that the real ones have, with small random weights."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch
from safetensors.torch import save
from tests.support.models import write_random_clip
from tests.support.sams import build_sam
from transformers import Tipsv2Model

from annofree.hub.cards import Card
from annofree.testing.architectures import build_tips_config, train_byte_tokenizer

__all__ = ["build_repository"]

_VIT = {"image_size": 224, "layers": 7, "width": 32, "head_width": 16, "patch_size": 32}
_RESNET = {"image_size": 224, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1}
_BESIDE = {"README.md": b"a model card", "open_clip_pytorch_model.bin": b"a pickle", "sam2.1_hiera_tiny.pt": b"a pickle"}
"""What is published beside, and never asked for."""


def build_repository(card: Card) -> dict[str, bytes]:
    """Return the files that the repository of a card holds, in the layout of its library."""
    return _BESIDE | _build(card.family, card.kind)


@cache
def _build(family: str, kind: str) -> dict[str, bytes]:
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if family.endswith("Tipsv2Model"):
            _write_tips(folder)
        elif kind == "clip":
            write_random_clip(folder, 16, _RESNET if family.endswith("ModifiedResNet") else _VIT, _TEXT)
        elif kind == "sam":
            layouts = {"Sam2Model": "sam2_video", "EdgeTamModel": "edgetam_video", "SamHQModel": "sam_hq"}
            build_sam(layouts.get(family.split(" ")[1], "sam")).save_pretrained(folder)
        else:
            _write_dino(folder)
        return _read(folder.iterdir())


def _read(paths: Iterable[Path]) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


def _write_tips(folder: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Tipsv2Model(build_tips_config("tipsv2-b-14", narrow=True)).save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(train_byte_tokenizer())


def _write_dino(folder: Path) -> None:
    own: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": 224}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("vit_small_patch16_224", num_classes=0, **own)
    said = {"architecture": "vit_small_patch16_224", "model_args": own, "num_classes": 0, "pretrained_cfg": {"tag": "dino"}}
    (folder / "config.json").write_text(json.dumps(said), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(save(model.state_dict()))
