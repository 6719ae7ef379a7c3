"""MaskCut's cuts beside the dense solver that it was published with, and the field that draws its masks to edges.

    uv run python benchmarks/maskcut.py photos --limit 3 --json maskcut.json

Keys are those of the bundled DINO on emoji scenes, and those of a ViT-B/8 with random weights on the photographs, each on 60
x 60 cells. The reference solves the generalized problem of the whole dense matrix once a round, in float64. Processor
seconds, both in one process; cells that differ, and cells so near to the threshold that rounding decides, are counted. The
field is built once an image and serves its masks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import timm
import torch

from annofree.features.dino import Dino
from annofree.fragments.discovery import find_by_lost, find_by_tokencut
from annofree.fragments.maskcut import MaskCutSettings, cut_masks
from annofree.hub.cards import find_bundled
from annofree.ops.crf import DenseCrf
from annofree.structures import Image
from annofree.testing.obvious_maskcut import cut_obvious_masks
from annofree.testing.timing import print_json

SCENES = Path(__file__).parents[1] / "examples" / "scenes"
SIDE = 480

Array = np.ndarray[Any, Any]


def read_square(path: Path, side: int = SIDE) -> Array:
    """An image as MaskCut sees it."""
    return np.asarray(PIL.Image.open(path).convert("RGB").resize((side, side), PIL.Image.Resampling.LANCZOS))


def time_call(call: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of a call, and its answer."""
    start = time.process_time()
    answer = call()
    return time.process_time() - start, answer


def compare(keys: Array, settings: MaskCutSettings) -> dict[str, Any]:
    """One image's keys, cut by both."""
    slow, expected = time_call(lambda: cut_obvious_masks(keys, **asdict(settings)))
    fast, found = time_call(lambda: cut_masks(keys, settings))
    differ = sum(int((a.mask != b).sum()) for a, b in zip(found, expected, strict=True))
    return {
        "dense": round(slow, 2),
        "ours": round(fast, 2),
        "ratio": round(slow / fast, 1),
        "cells that differ": differ,
        "undecided": sum(cut.undecided for cut in found),
        "masks": sum(bool(cut.mask.any()) for cut in found),
        "LOST": round(time_call(lambda: find_by_lost(keys))[0], 3),
        "TokenCut": round(time_call(lambda: find_by_tokencut(keys))[0], 3),
    }


def draw_random_keys(path: Path) -> Array:
    """Keys of a ViT-B/8 with random weights, 60 x 60 cells."""
    torch.manual_seed(0)
    model: Any = timm.create_model("vit_base_patch8_224", num_classes=0, img_size=SIDE, dynamic_img_size=True).eval()
    kept: list[torch.Tensor] = []
    attn = model.blocks[-1].attn
    attn.qkv.register_forward_hook(lambda _m, _i, out: kept.append(out))
    x = torch.tensor(read_square(path)).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        model((x - 0.45) / 0.225)
    keys = kept[0][0, 1:].reshape(-1, 3, 768)[:, 1]
    return np.ascontiguousarray(keys.T.reshape(768, SIDE // 8, SIDE // 8).numpy())


def read_tiny_keys(path: Path, cells: int) -> Array:
    """Keys of the bundled DINO on ``cells`` a side."""
    dino = Dino(find_bundled("tiny-dino"), side=cells * 8)
    while True:
        (keys,) = dino.extract_keys([Image(read_square(path))])
        if keys.values.shape[1] >= cells:
            return keys.values.numpy()
        dino.side = int(dino.side or 0) * 2


def time_field(path: Path) -> dict[str, float]:
    """The field of an image: building it, and each of three masks."""
    square = read_square(path)
    build, field = time_call(lambda: DenseCrf(square))
    mask = np.zeros((SIDE, SIDE), bool)
    mask[100:300, 150:350] = True
    refine = [time_call(lambda: field.refine(mask))[0] for _ in range(3)]
    return {
        "build": round(build, 2),
        "a mask": round(sum(refine) / 3, 2),
        "a mask of three, with its share": round((build + sum(refine)) / 3, 2),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="?", default=SCENES, help="a folder of photographs")
    parser.add_argument("--limit", type=int, default=3)
    parser.add_argument("--cells", type=int, default=60, help="cells a side of the bundled DINO's keys")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    photos = sorted(p for p in asked.photos.iterdir() if p.suffix.lower() in (".jpg", ".png"))[: asked.limit]
    scenes = sorted(p for p in SCENES.iterdir() if p.suffix == ".jpg")[: asked.limit]
    found: dict[str, Any] = {"tiny-dino": [], "random ViT-B/8": [], "field": []}
    for scene in scenes:
        found["tiny-dino"].append(compare(read_tiny_keys(scene, asked.cells), MaskCutSettings()))
        print("tiny-dino", scene.name, found["tiny-dino"][-1], flush=True)
    for photo in photos if asked.cells == 60 else []:
        found["random ViT-B/8"].append(compare(draw_random_keys(photo), MaskCutSettings()))
        print("random ViT-B/8", photo.name, found["random ViT-B/8"][-1], flush=True)
    for photo in photos:
        found["field"].append(time_field(photo))
        print("field", photo.name, found["field"][-1], flush=True)
    print_json(found, asked.json)


if __name__ == "__main__":
    main()
