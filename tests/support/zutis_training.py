"""An archive of masked squares, a random CLIP, and a recipe that trains ZUTIS on them within a second."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from faster_coco_eval import mask as coco_mask
from open_clip.model import CLIP
from safetensors.torch import save_file

from annofree.hub.cards import Card, find_bundled, hash_file
from annofree.retrieval.archive import Archive, MaskWriter, Member, PseudoMask

__all__ = ["COLORS", "NAMES", "SIDE", "TOML", "write_archive", "write_clip"]

NAMES = ("dog", "cat", "cup")
COLORS = {"dog": (200, 40, 40), "cat": (40, 200, 40), "cup": (40, 40, 200)}
SIDE = 32
TOML = """
archive = "archive"
clip = "clip"
out = "out"
steps = 6
batch = 2
lr = 1e-3
encoder_lr = 1e-4
log_every = 2
checkpoint_every = 3
side = 32
world = "emoji"

[scenes]
crop = 32
images = [1, 3]

[network]
queries = 4
decoder_layers = 2
decoder_heads = 4
decoder_ffn = 16
mlp_hidden = 16
"""


def write_clip(folder: Path) -> None:
    """A tiny, random ViT with a text tower that knows the bundled vocabulary."""
    folder.mkdir()
    shutil.copy(find_bundled("tiny-clip") / "vocabulary.json", folder)
    words = len(json.loads((folder / "vocabulary.json").read_text()))
    settings = json.loads((find_bundled("tiny-clip") / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
    text = {"context_length": 24, "vocab_size": settings["vocab_size"], "width": 16, "heads": 2, "layers": 1}
    assert words <= settings["vocab_size"]
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "pool_type": "avg"}
    config: dict[str, Any] = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        state = CLIP(**config).state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    files = {p.name: hash_file(p) for p in folder.iterdir()}
    Card("clip", "open_clip VisionTransformer", "S1", "Apache-2.0", "nothing", "emoji", files).write(folder)


def write_archive(folder: Path, masked: tuple[str, ...] = NAMES) -> None:
    """Three images a name, each of a square in the name's colour."""
    rng = np.random.default_rng(0)
    members, places = dict[str, tuple[Member, ...]](), dict[str, str]()
    folder.mkdir()
    with MaskWriter(folder, {"by": "selfmask", "model": {"tier": "S0"}}) as writer:
        for name in NAMES:
            ids = [f"{name}-{i}" for i in range(3)]
            members[name] = tuple(Member(id_, 0.3) for id_ in ids)
            for id_ in ids:
                pixels, mask = rng.integers(90, 130, (40, 36, 3), np.uint8), np.zeros((40, 36), np.uint8)
                top, left = rng.integers(2, 12, 2)
                pixels[top : top + 20, left : left + 20], mask[top : top + 20, left : left + 20] = COLORS[name], 1
                PIL.Image.fromarray(pixels).save(folder / f"{id_}.png")
                places[id_] = str(folder / f"{id_}.png")
                if name in masked:
                    coded = coco_mask.encode(np.asfortranarray(mask))
                    rle = {"size": [40, 36], "counts": coded["counts"].decode()}
                    writer.add(PseudoMask(id_, rle, 0.5 + 0.1 * int(id_[-1])))
    Archive(NAMES, members, places, {"index": str(folder / "index"), "k": 3}).write(folder)
