"""Draw docs/how-it-flows.png: one image through every step of Zip.

uv run python docs/make_flow.py [--picture examples/scenes/harbour.jpg] [--name boat]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont
from torch import Tensor

from annofree.clues.similarity import compute_cosine_clues, stretch_to_unit
from annofree.io.images import read_image
from annofree.methods.build import build_method
from annofree.methods.components import Models
from annofree.methods.zip import Zip, ZipEncoding, ZipSettings
from annofree.ops.grids import resize_maps
from annofree.render.overlay import draw_overlay
from annofree.structures import Image, Vocabulary

_SIDE = 320
RGB = npt.NDArray[np.uint8]


def _coloured(labels: npt.NDArray[np.int64], seed: int = 3) -> RGB:
    """Give each number of a map (h, w) a color of its own; 0 is black."""
    colors = np.random.default_rng(seed).integers(40, 256, (int(labels.max()) + 1, 3), dtype=np.uint8)
    colors[0] = 0
    return colors[labels]


def _heat(values: npt.NDArray[np.float32]) -> RGB:
    """Black through red and yellow to white, for values (h, w) in 0 .. 1."""
    return np.stack([np.clip(3 * values - k, 0, 1) * 255 for k in range(3)], -1).astype(np.uint8)


def _boxed(image: Image, boxes: npt.NDArray[np.float32]) -> RGB:
    picture = PILImage.fromarray(image.pixels)
    for box in boxes.tolist():
        ImageDraw.Draw(picture).rectangle(box, outline=(255, 40, 40), width=2)
    return np.asarray(picture)


def panels(image: Image, name: str) -> list[tuple[str, RGB]]:
    """Every step of Zip on one image, each with its title."""
    models = Models("tiny", "cpu")
    clip, sam = models.clip, models.sam
    method, vocabulary = build_method("zip", models), Vocabulary.of([name])
    settings: ZipSettings = method.settings
    encoding: ZipEncoding = method.encode([image])[0]
    clue = stretch_to_unit(compute_cosine_clues(encoding.tokens, clip.encode_text(vocabulary), clip.encode_null_text()).values)
    cells, pieces = resize_maps(clue, encoding.grid), encoding.fragments
    kept = method.kept(encoding, clue, cells)[0]
    coarse = method.find_coarse(encoding, vocabulary)
    steps = {
        p: Zip(clip, sam, replace(settings, prompting=p)).instances(encoding, vocabulary) for p in ("one-step", "two-step")
    }
    return [
        ("the picture", image.pixels),
        (f"clue: how much '{name}'", _heat(clue[0].numpy())),
        ("K-means on conv4_x", _coloured(_painted(pieces.labels, pieces.cluster))),
        ("fragments, without a name", _coloured(pieces.labels.numpy())),
        ("kept: active and compact", _coloured(pieces.labels.numpy() * _painted(pieces.labels, kept.long()))),
        ("joined: coarse boxes", _boxed(image, coarse.boxes.numpy())),
        ("SAM, from the box", np.asarray(draw_overlay(image, steps["one-step"]))),
        ("SAM, from the refined box", np.asarray(draw_overlay(image, steps["two-step"]))),
    ]


def _painted(labels: Tensor, values: Tensor) -> npt.NDArray[np.int64]:
    """Paint each fragment 1 .. N of a map (h, w) with its value (N), and 0 with 0."""
    painted: npt.NDArray[np.int64] = torch.cat([values.new_zeros(1), values])[labels].numpy()
    return painted


def sheet(steps: list[tuple[str, RGB]], columns: int = 4) -> PILImage.Image:
    """Lay the steps out in rows, with their titles."""
    font, rows = ImageFont.load_default(17), -(-len(steps) // columns)
    page = PILImage.new("RGB", (columns * (_SIDE + 12) + 12, rows * (_SIDE + 40) + 12), "white")
    for i, (title, pixels) in enumerate(steps):
        x, y = 12 + i % columns * (_SIDE + 12), 12 + i // columns * (_SIDE + 40)
        ImageDraw.Draw(page).text((x, y), f"{i + 1}. {title}", fill="black", font=font)
        large = PILImage.fromarray(pixels).resize((_SIDE, _SIDE), PILImage.Resampling.NEAREST)
        page.paste(large, (x, y + 24))
    return page


def main() -> None:
    """Draw the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path, default=Path("examples/scenes/harbour.jpg"))
    parser.add_argument("--name", default="boat")
    parser.add_argument("--out", type=Path, default=Path("docs/how-it-flows.png"))
    asked = parser.parse_args()
    sheet(panels(read_image(asked.picture), asked.name)).save(asked.out, optimize=True)


if __name__ == "__main__":
    main()
