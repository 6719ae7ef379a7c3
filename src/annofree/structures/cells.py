"""What is known of the cells of a grid that covers an image.

The checks look at what a tensor says of itself, never at its values: those may be on another device, and not computed yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from annofree.errors import InputError
from annofree.structures.arrays import check_size, describe_value

__all__ = ["ClueMap", "FeatureMap", "Fragments"]

Meaning = Literal["cosine", "activation"]


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Features of an image on a grid: ``values`` (D, h, w), whose cells evenly cover the whole image of ``size`` (H, W).

    Where a model pads the image to whole patches, ``window`` (H', W') is what the cells cover, from the top left corner.
    Raises InputError for values of another shape or of whole numbers, and for sizes that are none.
    """

    values: Tensor
    size: tuple[int, int]
    window: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _check_maps("features (D, h, w)", self.values)
        check_size(self.size)
        if self.window is not None:
            check_size(self.window)


@dataclass(frozen=True, eq=False)
class ClueMap:
    """How much each cell suggests each class: ``values`` (K, h, w) over the whole image of ``size`` (H, W).

    ``meaning`` is what a value is: a cosine, or an activation that runs from 0 to 1 over each map.
    Raises InputError for values of another shape or of whole numbers, a size that is none and any other meaning.
    """

    values: Tensor
    size: tuple[int, int]
    meaning: Meaning

    def __post_init__(self) -> None:
        _check_maps("clues (K, h, w)", self.values)
        check_size(self.size)
        if self.meaning not in get_args(Meaning):
            raise InputError(f"expected clues that mean {' or '.join(get_args(Meaning))}, got {self.meaning!r}")


@dataclass(frozen=True, eq=False)
class Fragments:
    """Pieces of an image that have no name yet.

    ``labels`` (h, w) int64 holds 1 .. N, 0 where there is no piece; ``area`` (N) in cells; ``boxes`` (N, 4) x0 y0 x1 y1 in
    cells, end-exclusive; ``cluster`` (N) the cluster, from 1, that each was cut from.  Raises InputError for other shapes.
    """

    labels: Tensor
    area: Tensor
    boxes: Tensor
    cluster: Tensor

    def __post_init__(self) -> None:
        if self.labels.dtype != torch.int64 or self.labels.ndim != 2:
            raise InputError(f"expected the labels of fragments as (h, w) int64, got {describe_value(self.labels)}")
        count = self.area.numel()
        shapes = tuple(self.area.shape), tuple(self.boxes.shape), tuple(self.cluster.shape)
        if shapes != ((count,), (count, 4), (count,)):
            raise InputError("expected area (N), boxes (N, 4) and cluster (N) of fragments, got {}, {} and {}".format(*shapes))

    def __len__(self) -> int:
        return len(self.area)


def _check_maps(what: str, values: Tensor) -> None:
    if not (isinstance(values, Tensor) and values.is_floating_point() and values.ndim == 3):
        raise InputError(f"expected {what} as a tensor of floating-point numbers, got {describe_value(values)}")
