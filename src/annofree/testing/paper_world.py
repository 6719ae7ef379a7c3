"""The paper world: scenes cut from flat colored paper, whose right answer is known to the pixel.

Every image is wide or tall and nothing in it is centered, so that swapped axes show.  A class is a color, the
background is gray.  Two instances that touch have two shades of their class, so features of color tell them apart
while the class stays the same.  Edges lie on multiples of 8 px, but for the scene named "off-grid".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from annofree.structures import BoolArray, Image, IntArray

__all__ = ["BACKGROUND", "COLORS", "NAMES", "PaperScene", "classify_pixels", "draw_paper_scenes"]

Color = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]
Piece = tuple[str, int, tuple[Rectangle, ...]]

# The shades of a class differ in hue and not in brightness alone, so features of unit length differ as well.
COLORS: dict[str, tuple[Color, Color]] = {
    "apple": ((200, 30, 30), (170, 30, 70)),
    "car": ((40, 60, 200), (40, 110, 190)),
    "tree": ((30, 140, 40), (80, 150, 20)),
    "banana": ((225, 205, 40), (235, 170, 30)),
    "umbrella": ((130, 40, 170), (100, 50, 150)),
    "boat": ((60, 205, 190), (40, 190, 150)),
}
"""Two RGB shades of each class."""

NAMES: tuple[str, ...] = tuple(COLORS)
"""The classes of this world; `class_map` counts them in this order."""

BACKGROUND: Color = (128, 128, 128)
"""The RGB of the paper underneath."""

_SHADES = np.array([shade for pair in COLORS.values() for shade in pair], np.int64)
_LEAST_CHROMA = 40  # below it a pixel is gray of some brightness: CLIP's mean color and black padding are too


@dataclass(frozen=True, eq=False)
class PaperScene:
    """One image and its truth: ``image``, ``masks`` (N, H, W) bool, and ``names`` (N), the class of each object.

    >>> wide = draw_paper_scenes()[0]
    >>> wide.image.size, wide.masks.shape, wide.names
    ((96, 160), (1, 96, 160), ('apple',))
    """

    image: Image
    masks: BoolArray
    names: tuple[str, ...]

    def transposed(self) -> PaperScene:
        """Return the scene with rows and columns exchanged, (W, H)."""
        pixels = np.ascontiguousarray(self.image.pixels.transpose(1, 0, 2))
        masks = np.ascontiguousarray(self.masks.transpose(0, 2, 1))
        return PaperScene(Image(pixels, f"{self.image.id}, transposed"), masks, self.names)


def draw_paper_scenes() -> list[PaperScene]:
    """Draw the scenes: the same at each call, in new arrays.

    >>> [scene.image.id for scene in draw_paper_scenes()]
    ['one', 'touching', 'two classes', 'apart', 'ell', 'edge', 'off-grid', 'empty']
    """
    return [
        _draw("one", (96, 160), ("apple", 0, ((88, 16, 144, 56),))),
        _draw("touching", (160, 96), ("car", 0, ((16, 24, 64, 80),)), ("car", 1, ((16, 80, 80, 136),))),
        _draw("two classes", (104, 168), ("tree", 0, ((16, 8, 56, 72),)), ("umbrella", 0, ((88, 40, 152, 80),))),
        _draw("apart", (136, 88), ("banana", 0, ((8, 16, 48, 48),)), ("banana", 0, ((24, 72, 80, 120),))),
        _draw("ell", (112, 80), ("boat", 0, ((16, 8, 48, 80), (16, 48, 72, 80)))),
        _draw("edge", (88, 144), ("apple", 1, ((88, 48, 144, 88),)), ("tree", 1, ((0, 8, 40, 64),))),
        _draw("off-grid", (90, 150), ("banana", 1, ((35, 21, 101, 67),))),
        _draw("empty", (72, 120)),
    ]


def classify_pixels(pixels: npt.NDArray[np.uint8]) -> IntArray:
    """Return the class that each pixel's color is nearest to, (H, W) int64; gray of any brightness is ``len(NAMES)``.

    >>> classify_pixels(np.array([[[200, 30, 30], [128, 128, 128], [40, 110, 190]]], np.uint8)).tolist()
    [[0, 6, 1]]
    """
    # one number a color, for whole rows sort twenty times as slowly
    colors, back = np.unique(pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1]), return_inverse=True)
    wide = np.stack([colors >> 16, colors >> 8 & 255, colors & 255], 1)
    nearest = ((wide[:, None] - _SHADES) ** 2).sum(-1).argmin(1) // 2  # two shades a class
    nearest[np.ptp(wide, axis=1) < _LEAST_CHROMA] = len(NAMES)
    classes: IntArray = nearest[back.reshape(-1)].reshape(pixels.shape[:2])
    return classes


def _draw(id_: str, size: tuple[int, int], *pieces: Piece) -> PaperScene:
    """Lay pieces (name, shade, rectangles x0 y0 x1 y1) that do not overlap on gray paper."""
    pixels = np.full((*size, 3), BACKGROUND, np.uint8)
    masks = np.zeros((len(pieces), *size), bool)
    for mask, (name, shade, rectangles) in zip(masks, pieces, strict=True):
        for x0, y0, x1, y1 in rectangles:
            mask[y0:y1, x0:x1] = True
        pixels[mask] = COLORS[name][shade]
    return PaperScene(Image(pixels, id_), masks, tuple(name for name, _, _ in pieces))
