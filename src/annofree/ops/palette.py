"""The colors of a run's names: the k-th name has the k-th color, in every image, file and page of the run.

Each color is as far from all before it as a color can be, for the eye that tells them apart the worst: of normal vision or
without one of the three kinds of cones.  So the first are told apart the best, and none changes when names are added behind it.

Distances are Euclidean in OKLab (Ottosson 2020), in which 0.02 is just noticed; how other eyes see is simulated on linear RGB
(Machado, Oliveira and Fernandes 2009, severity 1).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["BACKGROUND_COLOR", "Color", "assign_colors", "choose_ink", "make_palette", "to_hex", "to_oklab"]

Color = tuple[int, int, int]
"""Red, green and blue, 0 .. 255."""

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BACKGROUND_COLOR: Color = (128, 128, 128)
"""Of the name "background", which takes no place in the palette; no other name is gray."""

_FIRST: Color = (0, 114, 178)  # Okabe and Ito's blue
_LIGHTNESS, _CHROMA = (0.4, 0.9), 0.15  # neither near-black nor near-white nor near-gray
_GRID = 15  # from candidate to candidate in red, green and blue
_CHOSEN = 512  # colors that are chosen by distance; names beyond it have others
_SIZES = (32, 128, _CHOSEN)  # that are computed at a time
_SCALE = 8192  # steps of whole numbers in 1 of OKLab, so that all processors choose alike
_STRIDE = 0x9E3779  # odd, so that its multiples meet all 2²⁴ colors before one comes again

_VISIONS = np.array(
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
)
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def make_palette(count: int) -> tuple[Color, ...]:
    """Return the first ``count`` colors, all different, neither near-white nor near-black nor near-gray.

    >>> make_palette(3)
    ((0, 114, 178), (240, 225, 90), (210, 0, 0))
    """
    size = next((size for size in _SIZES if size >= count), _CHOSEN)
    return (*_told_apart(size)[:count], *_others(max(0, count - _CHOSEN)))


def assign_colors(names: Iterable[str]) -> dict[str, Color]:
    """Return the color of each name, in their order; "background", in any capitals, is gray and takes no place.

    >>> assign_colors(["dog", "Background", "cat"])
    {'dog': (0, 114, 178), 'Background': (128, 128, 128), 'cat': (240, 225, 90)}
    """
    unique = dict.fromkeys(names)
    shown = [name for name in unique if name.lower() != "background"]
    known = dict(zip(shown, make_palette(len(shown)), strict=True))
    return {name: known.get(name, BACKGROUND_COLOR) for name in unique}


def to_hex(color: Color) -> str:
    """Return a color as CSS has it.

    >>> to_hex((0, 158, 115))
    '#009e73'
    """
    return "#{:02x}{:02x}{:02x}".format(*color)


def choose_ink(color: Color) -> Color:
    """Return black or white, whichever stands out more on a color, by the contrast ratio of WCAG 2: 4.5 at least.

    >>> choose_ink((240, 228, 66)), choose_ink((0, 0, 160))
    ((0, 0, 0), (255, 255, 255))
    """
    luminance = float(_linear(np.array(color)) @ [0.2126, 0.7152, 0.0722])
    return (0, 0, 0) if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else (255, 255, 255)


def to_oklab(colors: npt.ArrayLike) -> FloatArray:
    """Return colors (N, 3) uint8 in OKLab as eyes see them, (4, N, 3): normal, then without L, M and S cones.

    >>> to_oklab([(255, 255, 255)]).round(2)[0].tolist()
    [[1.0, 0.0, 0.0]]
    """
    seen = np.clip(_linear(np.asarray(colors)) @ _VISIONS.transpose(0, 2, 1), 0, 1)
    lab: FloatArray = np.cbrt(seen @ _TO_CONES.T) @ _TO_LAB.T
    return lab


def _linear(colors: npt.NDArray[np.integer]) -> FloatArray:
    values = colors / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


@lru_cache
def _told_apart(count: int) -> tuple[Color, ...]:
    """Choose colors one by one, each as far as can be from the nearest of those before it."""
    candidates = _colorful(_grid())
    places = _steps(candidates)
    nearest = _distances(places, _steps(np.array([_FIRST])))
    chosen = [_FIRST]
    while len(chosen) < count:
        k = int(nearest.argmax())
        chosen.append(_color(candidates[k]))
        np.minimum(nearest, _distances(places, places[:, :, k : k + 1]), out=nearest)
    return tuple(chosen)


def _grid() -> IntArray:
    values = np.arange(0, 256, _GRID)
    return np.stack(np.meshgrid(values, values, values, indexing="ij"), -1).reshape(-1, 3)


def _colorful(colors: IntArray) -> IntArray:
    """Those of some colors (N, 3) that stand out on an image and under a black or white text."""
    lightness, a, b = to_oklab(colors)[0].T
    kept: IntArray = colors[(lightness > _LIGHTNESS[0]) & (lightness < _LIGHTNESS[1]) & (np.hypot(a, b) > _CHROMA)]
    return kept


def _steps(colors: IntArray) -> npt.NDArray[np.int32]:
    """OKLab in whole steps, the three axes first: (3, 4, N)."""
    return np.ascontiguousarray(np.rint(to_oklab(colors) * _SCALE).astype(np.int32).transpose(2, 0, 1))


def _distances(places: npt.NDArray[np.int32], place: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The squared distance (N) of each of some places (3, 4, N) to one (3, 4, 1), for the eye to which it is the least."""
    apart = places - place
    least: npt.NDArray[np.int32] = (apart * apart).sum(0, dtype=np.int32).min(0)
    return least


@lru_cache(maxsize=8)
def _others(count: int) -> tuple[Color, ...]:
    """Colors that were not chosen, scattered over all, for lists of names that no eye tells apart by color."""
    if not count:
        return ()
    numbers = np.arange(1, 4 * (count + _CHOSEN)) * _STRIDE % (1 << 24)  # some third of all are colorful
    colors = _colorful(np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], 1))
    chosen = set(_told_apart(_CHOSEN))
    return tuple(color for color in map(_color, colors) if color not in chosen)[:count]


def _color(values: IntArray) -> Color:
    red, green, blue = values.tolist()
    return red, green, blue
