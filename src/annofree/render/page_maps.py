"""Label maps and panoptic maps as layers over an image: one small PNG per class, so that a page can toggle each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL import ImageColor

__all__ = ["MOST_LAYERS", "Layer", "Segments", "trace_layers"]

MOST_LAYERS = 24
"""Names of a map that have a layer of their own, the largest; the others share one."""

_SIDE = 800  # px of the longer side of a layer
_FILL, _EDGE = 115, 235  # of 255, how much of the image a region and its edge cover
_OTHERS = "#888888"

Ids = npt.NDArray[np.int32]

Segments = tuple[Ids, dict[int, str]]
"""A map of ids (H, W), and the names of ids; what has no name is background or void."""


@dataclass(frozen=True, eq=False)
class Layer:
    """The regions of one name, "" for all names without a layer of their own: their part of the image, and how they look."""

    name: str
    share: float
    picture: PIL.Image.Image


def trace_layers(ids: Ids, names: Mapping[int, str], colors: Mapping[str, str]) -> list[Layer]:
    """Return a layer for each name of a map (H, W), the largest first; regions of ids that ``names`` lacks are left clear.

    Regions of two ids of one class are separated by an edge.

    >>> layers = trace_layers(np.array([[1, 1, 2, 0]], np.int32), {1: "sky", 2: "sky"}, {"sky": "#0072b2"})
    >>> [(layer.name, layer.share) for layer in layers]
    [('sky', 0.75)]
    """
    shares: dict[str, float] = {}
    for id_, count in zip(*np.unique(ids, return_counts=True), strict=True):
        if int(id_) in names:
            shares[names[int(id_)]] = shares.get(names[int(id_)], 0.0) + float(count) / ids.size
    small = _small(ids)
    edges = _edges(small)
    ordered = sorted(shares, key=lambda name: -shares[name])
    layers = [
        _layer(name, shares, {k for k in names if names[k] == name}, small, edges, colors) for name in ordered[:MOST_LAYERS]
    ]
    if len(ordered) > MOST_LAYERS:
        rest = {k for k in names if names[k] in ordered[MOST_LAYERS:]}
        layers.append(_layer("", {"": sum(shares[name] for name in ordered[MOST_LAYERS:])}, rest, small, edges, colors))
    return layers


def _small(ids: Ids) -> Ids:
    """Every k-th pixel, so that the longer side is at most ``_SIDE``."""
    step = -(-max(ids.shape) // _SIDE)
    return ids[step // 2 :: step, step // 2 :: step]


def _edges(ids: Ids) -> npt.NDArray[np.bool_]:
    """Pixels beside which another id begins, on the right or below."""
    edge = np.zeros(ids.shape, bool)
    edge[:, :-1] |= ids[:, 1:] != ids[:, :-1]
    edge[:-1] |= ids[1:] != ids[:-1]
    return edge


def _layer(
    name: str,
    shares: Mapping[str, float],
    own: set[int],
    ids: Ids,
    edges: npt.NDArray[np.bool_],
    colors: Mapping[str, str],
) -> Layer:
    inside = np.isin(ids, list(own))
    image = PIL.Image.fromarray(inside.astype(np.uint8) + (inside & edges))
    image.putpalette(bytes([0, 0, 0, *2 * ImageColor.getrgb(colors.get(name, _OTHERS))]))
    image.info["transparency"] = bytes([0, _FILL, _EDGE])
    return Layer(name, shares[name], image)
