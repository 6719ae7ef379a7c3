"""Labeled images of squares, and a recipe that trains a detector on them within a second."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from annofree.formats.coco import CocoFile
from annofree.structures import Detections

__all__ = ["COLORS", "NAMES", "TOML", "write_labels"]

NAMES = ("dog", "cat", "cup")
COLORS = ((200, 40, 40), (40, 200, 40), (40, 40, 200))
TOML = """
labels = "labels.json"
images = "pictures"
out = "out"
steps = 6
batch = 2
lr = 0.02
decay_at = [4]
warmup = 2
log_every = 2
checkpoint_every = 3
world = "emoji"

[network]
backbone = "clip-resnet"
layers = [1, 1, 1, 1]
width = 8
norm = "group"
channels = 8
fc = 16
mask_convs = 1
side = 48
longest = 64
anchors = [8, 16, 32, 64, 128]
rpn_before = [100, 100]
rpn_after = [30, 30]
rpn_batch = 8192
score_floor = 0.0

[scenes]
sides = [48, 64]
longest = 64
copy_paste = 0.5
"""


def write_labels(folder: Path, info: Mapping[str, Any] | None = None) -> None:
    """Six images of two squares each, in the colours of their names."""
    rng, file = np.random.default_rng(0), CocoFile.with_categories(dict(enumerate(NAMES, 1)))
    (folder / "pictures").mkdir(parents=True)
    for n in range(6):
        pixels, masks = rng.integers(90, 130, (48, 56, 3), np.uint8), np.zeros((2, 48, 56), bool)
        for k, left in enumerate((3, 31)):
            masks[k, 8 + n : 30 + n, left : left + 20] = True
            pixels[masks[k]] = COLORS[(n + k) % 3]
        PIL.Image.fromarray(pixels).save(folder / "pictures" / f"{n}.png")
        things = Detections.from_masks(masks, [n % 3, (n + 1) % 3], [1.0, 1.0], NAMES)
        file.add_annotations(things.to_coco(file.add_image(f"{n}.png", (48, 56))))
    file.info = dict(info or {})
    file.write(folder / "labels.json")
