"""Windows that slide over an image, and the map that theirs make together.

D channels, h w cells of a window, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from annofree.errors import InputError
from annofree.ops.grids import resize_maps
from annofree.structures import FeatureMap, Image

__all__ = ["Box", "Windows", "cut_image", "cut_windows", "merge_windows", "resize_to_image"]

Box = tuple[int, int, int, int]
"""x0 y0 x1 y1 in px of the image, end-exclusive."""


@dataclass(frozen=True)
class Windows:
    """How an image is looked at in squares that overlap, as sliding inference does; as it stands, whole.

    Raises InputError for windows without a step, or with a step that leaves gaps.
    """

    # px that the image's short side would be brought to; 0 looks at the whole image at once
    short: int = 0
    # px of a window at that size, at most the short side
    side: int = 224
    # px from one window to the next
    step: int = 112

    def __post_init__(self) -> None:
        if self.short < 0 or not 1 <= self.step <= self.side:
            raise InputError(
                f"expected a short side from 0 and a step from 1 to the window's side, got {self.short}, {self.step} "
                f"and {self.side}"
            )


def cut_windows(size: tuple[int, int], windows: Windows) -> list[Box]:
    """List the windows of an image of ``size`` (H, W), row by row; one that is smaller than a window is one.

    They are squares of the image's own px; the last of a row ends where the image does.

    >>> cut_windows((336, 448), Windows(336, 224, 112))[:3], cut_windows((5, 4), Windows())
    ([(0, 0, 224, 224), (112, 0, 336, 224), (224, 0, 448, 224)], [(0, 0, 4, 5)])
    """
    if not windows.short:
        return [(0, 0, size[1], size[0])]
    scale = min(size) / windows.short
    side = max(1, min(round(windows.side * scale), min(size)))
    step = max(1, min(round(windows.step * scale), side))
    tops, lefts = (_starts(n, side, step) for n in size)
    return [(x, y, x + side, y + side) for y in tops for x in lefts]


def _starts(length: int, side: int, step: int) -> list[int]:
    count = math.ceil((length - side) / step) + 1
    return [min(i * step, length - side) for i in range(count)]


def resize_to_image(found: FeatureMap) -> FeatureMap:
    """A map without padding: cells that evenly cover the image, resampled where those of a model go beyond it.

    >>> resize_to_image(FeatureMap(torch.tensor([[[0.0, 1.0]]]), (4, 6), (4, 8))).values.tolist()
    [[[0.0, 0.625]]]
    """
    if found.window in (None, found.size):
        return FeatureMap(found.values, found.size)
    height, width = found.values.shape[-2:]
    y, x = (
        _places(n, full, part) for n, full, part in zip((height, width), found.window or found.size, found.size, strict=True)
    )
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).to(found.values)
    values = torch.nn.functional.grid_sample(
        found.values[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return FeatureMap(values[0], found.size)


def _places(count: int, full: int, part: int) -> Tensor:
    """Where the centers of ``count`` even cells of ``part`` px lie in ``full`` px, from -1 to 1."""
    return (torch.arange(count) + 0.5) / count * part / full * 2 - 1


def cut_image(image: Image, box: Box) -> Image:
    """The pixels of a box of an image, or the image itself where that is all of it."""
    x0, y0, x1, y1 = box
    if (y1 - y0, x1 - x0) == image.size:
        return image
    return Image(np.ascontiguousarray(image.pixels[y0:y1, x0:x1]), image.id)


def merge_windows(maps: Sequence[FeatureMap], boxes: Sequence[Box], size: tuple[int, int]) -> Tensor:
    """Lay the maps (D, h, w) of windows on one grid over an image of ``size`` (H, W) and average them, (D, h', w').

    The grid's cells are as large as those of the first window.
    """
    if len(maps) == 1:
        return maps[0].values
    rows, columns = maps[0].values.shape[-2:]
    cells = rows / (boxes[0][3] - boxes[0][1]), columns / (boxes[0][2] - boxes[0][0])
    grid = tuple(max(1, round(n * c)) for n, c in zip(size, cells, strict=True))
    total = maps[0].values.new_zeros(len(maps[0].values), *grid)
    count = total.new_zeros(grid)
    for found, (x0, y0, x1, y1) in zip(maps, boxes, strict=True):
        top, left = round(y0 * cells[0]), round(x0 * cells[1])
        bottom, right = (
            min(g, max(a + 1, round(b * c))) for g, a, b, c in zip(grid, (top, left), (y1, x1), cells, strict=True)
        )
        part = resize_maps(found.values, (bottom - top, right - left))
        total[:, top:bottom, left:right] += part
        count[top:bottom, left:right] += 1
    return total / count
