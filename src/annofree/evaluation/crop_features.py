"""What CLIP or a DINO sees in the boxes of predictions: a feature each, for clusters.

N boxes, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from torch import Tensor

from annofree.evaluation.metrics.predictions import Row, group_by_image, read_image_sizes
from annofree.evaluation.metrics.shapes import compute_box
from annofree.features.preprocessing import crop_image
from annofree.formats.coco import CocoFile
from annofree.protocols import SelfSupervised, VisionLanguage
from annofree.structures import Image

__all__ = ["CropEncoder", "encode_clip_crops", "encode_dino_crops", "encode_predictions"]

CropEncoder = Callable[[Image, npt.NDArray[np.float32]], Tensor]
"""A feature (N, D) for each box (N, 4) x0 y0 x1 y1 px of an image."""

_SIDE = 224  # px of the squares that a DINO sees


def encode_clip_crops(clip: VisionLanguage, image: Image, boxes: npt.NDArray[np.float32]) -> Tensor:
    """The feature of each crop by itself, (N, D)."""
    return clip.encode_crops(image, boxes, pooled=False).cpu()


def encode_dino_crops(dino: SelfSupervised, image: Image, boxes: npt.NDArray[np.float32]) -> Tensor:
    """The mean over the cells of each crop, brought to a square of 224 px, of the keys of a DINO's last block, (N, D)."""
    squares = [_crop(image, box) for box in boxes]
    return torch.stack([cells.values.float().flatten(1).mean(1).cpu() for cells in dino.extract_keys(squares)])


def encode_predictions(
    truth: CocoFile,
    rows: Sequence[Row],
    open_image: Callable[[str], Image],
    encode: CropEncoder,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """A feature for each prediction, (N, D), in their order; one image of the truth is open at a time."""
    names: Mapping[int, str] = {row["id"]: str(row["file_name"]) for row in truth.images}
    sizes, found = read_image_sizes(truth), dict[int, Tensor]()
    groups = group_by_image([{**row, "place": place} for place, row in enumerate(rows)])
    for done, (image_id, own) in enumerate(groups.items()):
        on_progress(done, len(groups))
        boxes = np.array([compute_box(row, sizes[image_id]) for row in own], np.float32)
        boxes[:, 2:] += boxes[:, :2]
        found |= zip((row["place"] for row in own), encode(open_image(names[image_id]), boxes), strict=True)
    on_progress(len(groups), len(groups))
    return torch.stack([found[place] for place in range(len(rows))]) if rows else torch.zeros(0, 1)


def _crop(image: Image, box: npt.NDArray[np.float32]) -> Image:
    """What is in a box as a square."""
    pixels = PIL.Image.fromarray(crop_image(image, box).pixels)
    return Image(np.asarray(pixels.resize((_SIDE, _SIDE), PIL.Image.Resampling.BICUBIC)), image.id)
