"""Windows of one size all over an image, the last of them moved back inside, and the mean of what they say.

K maps, H W px of the image that windows are cut from.  A box is y0 y1 x0 x1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import torch
from torch import Tensor

from annofree.errors import InputError

__all__ = ["Box", "average_windows", "cut_windows", "lay_windows", "pad_to_patches"]

Box = tuple[int, int, int, int]
"""First row, the row after the last, first column, the column after the last."""


def lay_windows(size: tuple[int, int], window: int, stride: int) -> tuple[Box, ...]:
    """Lay windows of ``window`` px, ``stride`` px apart, over an image of ``size`` (H, W), row by row.

    The last of a row ends where the image does; a side that is shorter than a window is one window.  Raises InputError for
    windows of less than a pixel, and for strides that would leave gaps.

    >>> lay_windows((448, 600), 448, 224)
    ((0, 448, 0, 448), (0, 448, 152, 600))
    >>> lay_windows((30, 500), 448, 224)
    ((0, 30, 0, 448), (0, 30, 52, 500))
    """
    if not 1 <= stride <= window:
        raise InputError(f"expected windows of 1 px or more, a stride of 1 px up to a window apart, got {window} and {stride}")
    rows, columns = (_lay_side(length, window, stride) for length in size)
    return tuple((y0, y1, x0, x1) for (y0, y1), (x0, x1) in product(rows, columns))


def _lay_side(length: int, window: int, stride: int) -> list[tuple[int, int]]:
    count = -(-max(length - window, 0) // stride) + 1
    ends = [min(i * stride + window, length) for i in range(count)]
    return [(max(end - window, 0), end) for end in ends]


def cut_windows(x: Tensor, boxes: Sequence[Box]) -> Tensor:
    """Cut an image (C, H, W) into its windows, (N, C, h, w)."""
    return torch.stack([x[:, y0:y1, x0:x1] for y0, y1, x0, x1 in boxes])


def pad_to_patches(x: Tensor, patch: int) -> Tensor:
    """Put zeros around windows (N, C, h, w) so that their sides are whole patches, the odd one at the bottom and the right.

    >>> pad_to_patches(torch.ones(1, 1, 2, 3), 4)[0, 0].tolist()[1]
    [1.0, 1.0, 1.0, 0.0]
    """
    down, across = (-n % patch for n in x.shape[-2:])
    return torch.nn.functional.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))


def average_windows(
    draw: Callable[[int], Tensor], boxes: Sequence[Box], size: tuple[int, int], count: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Average the maps of windows, which overlap, over an image of ``size`` (H, W), (K, H, W) for ``count`` maps.

    ``draw`` gives the maps (K, h', w') of the n-th window, perhaps with an edge all around it, as ``pad_to_patches`` adds one.

    >>> boxes = lay_windows((1, 3), 2, 1)
    >>> average_windows(lambda n: torch.full((1, 1, 2), float(n)), boxes, (1, 3), 1).tolist()
    [[[0.0, 0.5, 1.0]]]
    """
    total, times = (torch.zeros(k, *size, device=device) for k in (count, 1))
    for n, (y0, y1, x0, x1) in enumerate(boxes):
        crop = partial(_crop_middle, size=(y1 - y0, x1 - x0))
        total[:, y0:y1, x0:x1] += crop(draw(n))
        times[:, y0:y1, x0:x1] += 1
    return total.div_(times)


def _crop_middle(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (K, h', w') without what was padded around ``size`` (h, w)."""
    top, left = ((full - n) // 2 for full, n in zip(maps.shape[-2:], size, strict=True))
    return maps[:, top : top + size[0], left : left + size[1]]
