"""Images in other colors and light, softer or sharper, and partly hidden, on the device that they are on.

B images (B, 3, H, W) in 0 .. 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["PhotometricChange", "RandomDraw", "hide_parts"]


class RandomDraw:
    """Uniform random numbers, all from one generator, on its device."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator, self.device = generator, generator.device

    def draw_between(self, low: float, high: float, *shape: int) -> Tensor:
        """Numbers from ``low`` to ``high``."""
        return low + (high - low) * torch.rand(*shape, generator=self.generator, device=self.device)

    def draw_integers(self, count: int, *shape: int) -> Tensor:
        """Whole numbers below ``count``."""
        return torch.randint(count, shape, generator=self.generator, device=self.device)

    def draw_booleans(self, share: float, *shape: int) -> Tensor:
        """Booleans of which ``share`` are true."""
        return self.draw_between(0, 1, *shape) < share


class PhotometricChange(RandomDraw):
    """Shows views in other colors, with clouds of light, sharper or softer."""

    def __call__(self, x: Tensor) -> Tensor:
        """Change each image (B, 3, S, S) by itself."""
        return self.blur(self.add_clouds(self.jitter_color(x)))

    def jitter_color(self, x: Tensor) -> Tensor:
        """Other brightness, contrast, saturation and hue, a tenth without color."""
        count = len(x)
        mean = x.mean((1, 2, 3), keepdim=True)
        x = mean + self.draw_between(0.7, 1.3, count, 1, 1, 1) * (x - mean)
        saturation = self.draw_between(0.6, 1.4, count) * ~self.draw_booleans(0.1, count)
        turn = _color_matrices(saturation, self.draw_between(-0.6, 0.6, count))
        x = torch.einsum("bij,bjhw->bihw", turn, x) * self.draw_between(0.7, 1.3, count, 1, 1, 1)
        return x.clamp(0, 1)

    def add_clouds(self, x: Tensor) -> Tensor:
        """Clouds of many colors, broad and fine, over what was pasted and what was not."""
        count, size = len(x), x.shape[-1]
        broad, fine = (
            F.interpolate(self.draw_between(-1, 1, count, 3, cells, cells), size=(size, size), mode="bilinear")
            for cells in (3, size // 4)
        )
        return (x + self.draw_between(0, 0.3, count, 1, 1, 1) * (0.7 * broad + 0.3 * fine)).clamp(0, 1)

    def blur(self, x: Tensor) -> Tensor:
        """Half of the images, mixed to some degree with their mean over 3 x 3 px."""
        soft = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        return x + self.draw_between(-1, 1, len(x), 1, 1, 1).clamp(min=0) * (soft - x)


def hide_parts(x: Tensor, draw: RandomDraw) -> Tensor:
    """Cover half of the images (B, 3, H, W) by a box of one color each, a tenth to four tenths of a side wide and high."""
    count, (height, width) = len(x), x.shape[-2:]
    reach, center = draw.draw_between(0.1, 0.4, 2, count, 1, 1), draw.draw_between(0, 1, 2, count, 1, 1)
    rows, columns = (torch.linspace(0, 1, side, device=x.device) for side in (height, width))
    inside = ((rows[:, None] - center[0]).abs() < reach[0] / 2) & ((columns - center[1]).abs() < reach[1] / 2)
    covered = inside[:, None] & draw.draw_booleans(0.5, count, 1, 1, 1)
    return torch.where(covered, draw.draw_between(0, 1, count, 3, 1, 1), x)


def _color_matrices(saturation: Tensor, hue: Tensor) -> Tensor:
    """Matrices (B, 3, 3) that turn colors by ``hue`` radians about gray and stretch them from gray by ``saturation``."""
    gray = hue.new_full((3, 3), 1 / 3)
    side = hue.new_tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / 3**0.5
    cos, sin = hue.cos()[:, None, None], hue.sin()[:, None, None]
    return gray + saturation[:, None, None] * (cos * (torch.eye(3, device=hue.device) - gray) + sin * side)
