"""Random changes of a training image: where a square window of it lies, and in what light it is seen.

Every change is drawn first, as numbers that do not depend on the image, and applied later, so that it can be repeated, and
applied to the part of an image that is needed alone.  Images are RGB uint8; sizes are (H, W).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
from PIL import ImageEnhance, ImageFilter

__all__ = ["Axis", "Color", "ColorChange", "draw_light"]

Color = tuple[int, int, int]

_STEPS = ("brightness", "contrast", "saturation", "hue")


@dataclass(frozen=True)
class Axis:
    """Rows or columns of a square window of a scaled image, padded where it is too small.

    Of ``count`` source lines ``scaled`` are made; ``length`` of them, from ``begin``, lie in the window, from its ``start``.

    >>> Axis.placed(100, 0.5, side=64, far=True, where=0.9)
    Axis(count=100, scaled=50, begin=0, start=14, length=50)
    >>> Axis.placed(100, 1.0, side=64, far=True, where=0.5)
    Axis(count=100, scaled=100, begin=18, start=0, length=64)
    """

    count: int
    scaled: int
    begin: int
    start: int
    length: int

    @classmethod
    def placed(cls, count: int, scale: float, side: int, far: bool, where: float) -> Axis:
        """Scale ``count`` lines, cut to whole ones, and lay a window of ``side`` lines over them at ``where``, 0 .. 1.

        Too few lines are padded first: before them if they go to the ``far`` end, else after them.
        """
        scaled = max(1, int(scale * count))
        if scaled < side:
            return cls(count, scaled, 0, side - scaled if far else 0, scaled)
        return cls(count, scaled, int(where * (scaled - side + 1)), 0, side)

    def list_sources(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The source line under the center of each line in the window, (length,)."""
        lines = np.arange(self.begin, self.begin + self.length, dtype=np.int64)
        return (2 * lines + 1) * self.count // (2 * self.scaled)

    def find_source_span(self, begin: int, end: int) -> tuple[float, float]:
        """Where scaled lines ``begin`` to ``end``, counted within the window, lie in the source."""
        step = self.count / self.scaled
        return (self.begin + begin) * step, min((self.begin + end) * step, self.count)


@dataclass(frozen=True)
class ColorChange:
    """A drawn change of colors: jitter ``steps`` (name, amount) in order, then ``grey``, then a blur of ``sigma`` px.

    Brightness, contrast and saturation are factors, hue is a part of the color circle.
    """

    steps: tuple[tuple[str, float], ...] = ()
    grey: bool = False
    sigma: float = 0.0

    @property
    def reach(self) -> int:
        """Px over which the blur, which is three box blurs, carries a color at most."""
        return math.ceil(3 * self.sigma)

    def apply(self, image: PIL.Image.Image, mean: Color) -> tuple[PIL.Image.Image, Color]:
        """Change an image, or a part of one, and the image's ``mean`` color with it.

        Contrast turns about the gray of ``mean``, which changes step by step like any pixel, so that a part of an image comes
        out as it would in the whole.
        """
        pivot = PIL.Image.new("RGB", (1, 1), mean)
        for name, amount in self.steps:
            gray = int(np.asarray(pivot.convert("L"))[0, 0])
            image, pivot = (_jittered(p, name, amount, gray) for p in (image, pivot))
        if self.grey:
            image, pivot = (p.convert("L").convert("RGB") for p in (image, pivot))
        if self.sigma:
            image = image.filter(ImageFilter.GaussianBlur(self.sigma))
        red, green, blue = np.asarray(pivot)[0, 0].tolist()
        return image, (red, green, blue)


def _jittered(image: PIL.Image.Image, name: str, amount: float, gray: int) -> PIL.Image.Image:
    if name == "hue":
        hue, saturation, value = image.convert("HSV").split()
        turned = hue.point(np.roll(np.arange(256), -int(amount * 255)).tolist())
        return PIL.Image.merge("HSV", (turned, saturation, value)).convert("RGB")
    if name == "saturation":
        return ImageEnhance.Color(image).enhance(amount)
    center = (gray, gray, gray) if name == "contrast" else (0, 0, 0)
    return PIL.Image.blend(PIL.Image.new("RGB", image.size, center), image, amount)


def draw_light(
    rng: np.random.Generator,
    jitter: Sequence[float],
    jitter_share: float,
    gray: float,
    blur: float,
    sigma: Sequence[float],
) -> ColorChange:
    """Draw a light: with probability ``jitter_share`` a jitter, with ``grey`` no color, with ``blur`` a blur.

    ``jitter`` is the reach of brightness, contrast and saturation about 1, and of hue about 0, applied in random order;
    ``sigma`` the least and greatest width of the blur in px.
    """
    factors = [float(rng.uniform(max(0.0, 1 - reach), 1 + reach)) for reach in jitter[:3]]
    amounts = dict(zip(_STEPS, [*factors, float(rng.uniform(-jitter[3], jitter[3]))], strict=True))
    order = [_STEPS[i] for i in rng.permutation(len(_STEPS))]
    jittered, grayed, blurred = (float(p) > u for p, u in zip((jitter_share, gray, blur), rng.random(3), strict=True))
    width = float(rng.uniform(sigma[0], sigma[1]))
    return ColorChange(tuple((name, amounts[name]) for name in order) if jittered else (), grayed, width if blurred else 0.0)
