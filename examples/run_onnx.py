"""Run a detector that `annofree export-model` wrote, with onnxruntime, numpy and Pillow alone.

    python examples/run_onnx.py model.onnx photo.jpg --min-score 0.5 --out drawn.png

Prints a line of JSON for each thing: its name, score and box x0 y0 x1 y1 in px; draws masks where --out asks for it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
import PIL.Image
import PIL.ImageOps

Array = np.ndarray[Any, Any]


@dataclass
class Thing:
    """What was found: ``box`` x0 y0 x1 y1 px of the image, ``mask`` (H, W) bool."""

    name: str
    score: float
    box: Array
    mask: Array


class OnnxDetector:
    """A detector from its file; ``about`` is its metadata: names, side, longest, licence and more."""

    def __init__(self, path: str) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.about = {k: json.loads(v) for k, v in self.session.get_modelmeta().custom_metadata_map.items()}

    def find(self, image: PIL.Image.Image, min_score: float = 0.5) -> list[Thing]:
        """Find things in an image, strongest first."""
        width, height = image.size
        scale = min(self.about["side"] / min(image.size), self.about["longest"] / max(image.size))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = np.asarray(image.convert("RGB").resize(size, PIL.Image.Resampling.BILINEAR), np.float32) / 255
        boxes, scores, labels, masks = self.session.run(None, {"pixels": pixels.transpose(2, 0, 1)})
        boxes = boxes * np.array([width / size[0], height / size[1]] * 2, np.float32)
        return [
            Thing(self.about["names"][label], float(score), box, pasted(mask, box, (height, width)))
            for box, score, label, mask in zip(boxes, scores, labels, masks, strict=True)
            if score >= min_score
        ]


def pasted(mask: Array, box: Array, size: tuple[int, int]) -> Array:
    """Stretch a mask (M, M) of probabilities over its box, in an image of ``size``; bilinear, (H, W) bool."""
    rows, columns = weights(box[1], box[3], len(mask), size[0]), weights(box[0], box[2], len(mask), size[1])
    stretched: Array = rows @ mask @ columns.T >= 0.5
    return stretched


def weights(near: float, far: float, cells: int, pixels: int) -> Array:
    """What each pixel takes of each cell between ``near`` and ``far``, (pixels, cells)."""
    places = (np.arange(pixels) + 0.5 - near) / max(far - near, 1e-6) * cells - 0.5
    shares: Array = np.clip(1 - np.abs(places[:, None] - np.arange(cells)), 0, None)
    return shares


def drawn(image: PIL.Image.Image, things: list[Thing]) -> PIL.Image.Image:
    """The image with masks tinted, each class in a colour of its own."""
    pixels = np.array(image.convert("RGB"), np.float32)
    for thing in reversed(things):
        color = np.random.default_rng(list(thing.name.encode())).uniform(40, 255, 3)
        pixels[thing.mask] = 0.5 * pixels[thing.mask] + 0.5 * color
    return PIL.Image.fromarray(pixels.astype(np.uint8))


def main() -> None:
    """Read the arguments, find, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model")
    parser.add_argument("picture")
    parser.add_argument("--min-score", type=float, default=0.5)
    parser.add_argument("--out", help="where to draw what was found")
    asked = parser.parse_args()
    image = PIL.ImageOps.exif_transpose(PIL.Image.open(asked.picture)).convert("RGB")
    things = OnnxDetector(asked.model).find(image, asked.min_score)
    for thing in things:
        box = [round(float(v), 1) for v in thing.box]
        print(json.dumps({"name": thing.name, "score": round(thing.score, 3), "box": box, "pixels": int(thing.mask.sum())}))
    if asked.out:
        drawn(image, things).save(asked.out)


if __name__ == "__main__":
    main()
