"""Views that teach a tiny DINO without labels: blobs cut from busy places of images, pasted on calm places of other ones.

Every view is made of images alone.  Where the blobs lie is known because they were drawn at random; what is in them, and
whether there are things beside them, is not.

N images, B blobs of which each is seen in two views, S side of a view in px; colors in 0 .. 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.training.augment.photometric import RandomDraw

__all__ = ["Paster", "ViewPairs", "find_calmest"]

_CALM, _BUSY = (32, 48), (48, 64, 80)  # px of windows that are cut
_STRIDE = 8  # px between windows
_BLOBS = 3  # in a layer at most; the first is always there
_EDGE = 2.5  # 1 / _EDGE of a view's side is how steep the edge of a blob is


@dataclass(frozen=True)
class ViewPairs:
    """Two views of each blob: ``pixels`` (2, B, 3, S, S), ``pasted`` (2, B, S, S) opacity, ``poses`` (2, B, 2, 3).

    A pose maps x y 1 of a view to x y of the layer that the blob was drawn on, in -1 .. 1 as ``affine_grid`` has them.
    """

    pixels: Tensor
    pasted: Tensor
    poses: Tensor

    def measure_ground(self, cells: int) -> Tensor:
        """Share (2, B, cells * cells) of each patch that nothing was pasted over."""
        return 1 - F.adaptive_avg_pool2d(self.pasted, cells).flatten(2)

    def locate_patches(self, cells: int) -> Tensor:
        """Where the center of each patch of the first view lies in the second, x y (B, cells * cells, 2) in -1 .. 1."""
        still = torch.eye(2, 3, device=self.poses.device)[None]
        centers = F.affine_grid(still, [1, 1, cells, cells], align_corners=False).reshape(-1, 2)
        (turn, shift), (other, moved) = ((pose[:, :, :2], pose[:, None, :, 2]) for pose in self.poses)
        layer = centers @ turn.transpose(1, 2) + shift
        places: Tensor = (layer - moved) @ torch.linalg.inv(other).transpose(1, 2)
        return places


class Paster(RandomDraw):
    """Pastes blobs of images (N, 3, H, W) uint8 over others of them."""

    def __init__(self, images: Tensor, generator: torch.Generator) -> None:
        super().__init__(generator)
        images = images.to(self.device)
        self.images = images.permute(0, 2, 3, 1).contiguous()
        self.calm = {side: find_calmest(images, side) for side in _CALM}
        self.busy = {side: find_calmest(images, side, busiest=True) for side in _BUSY}

    def paste_pairs(self, count: int, size: int) -> ViewPairs:
        """Paste ``count`` layers of blobs twice each, in two poses, on two grounds."""
        layer, blobs = self.cut(self.busy, count, size), self.draw_blobs(count, size)
        both, pasted, poses = [], [], [self.draw_pose(count) for _ in range(2)]
        for pose in poses:
            moved = _posed(torch.cat([layer * blobs, blobs], 1), pose)
            pasted.append(moved[:, 3])
            both.append(self.shade(self.cut(self.calm, count, size), moved[:, 3:]) * (1 - moved[:, 3:]) + moved[:, :3])
        return ViewPairs(torch.stack(both), torch.stack(pasted), torch.stack(poses))

    def cut(self, corners: dict[int, Tensor], count: int, size: int) -> Tensor:
        """Windows of one of the given sides from ``count`` random images, half of them flipped, (count, 3, size, size)."""
        side, chosen = list(corners)[int(self.draw_integers(len(corners), 1))], self.draw_integers(len(self.images), count)
        y, x = (corners[side][chosen, k, None] + torch.arange(side, device=self.device) for k in range(2))
        found = self.images[chosen[:, None, None], y[:, :, None], x[:, None]].permute(0, 3, 1, 2).float() / 255
        found = F.interpolate(found, size=(size, size), mode="bilinear")
        return torch.where(self.draw_booleans(0.5, count, 1, 1, 1), found.flip(3), found)

    def draw_blobs(self, count: int, size: int) -> Tensor:
        """Opacity (count, 1, size, size) of up to three shapes, each a circle whose radius swings a few times around it."""
        y, x = torch.meshgrid(*2 * [torch.linspace(-1, 1, size, device=self.device)], indexing="ij")
        opacity = torch.zeros(count, size, size, device=self.device)
        for index in range(_BLOBS):
            size_of = (
                self.draw_between(0.15, 0.6, count)
                if index == 0
                else self.draw_between(0.1, 0.4, count) * self.draw_booleans(0.5, count)
            )
            center = self.draw_between(-0.7, 0.7, 2, count, 1, 1)
            dx, dy = (x - center[0]) * self.draw_between(0.7, 1.4, count, 1, 1), y - center[1]
            reach = size_of[:, None, None] * self.draw_swing(torch.atan2(dy, dx)) - torch.hypot(dx, dy)
            opacity = torch.maximum(opacity, (reach * size / _EDGE).clamp(0, 1))
        return opacity[:, None]

    def draw_swing(self, angle: Tensor) -> Tensor:
        """Relative radius at each angle (B, S, S)."""
        count = len(angle)
        waves = [
            self.draw_between(0, 0.25, count, 1, 1) * (k * angle + self.draw_between(0, 6.3, count, 1, 1)).cos()
            for k in (1, 2, 3, 5)
        ]
        return 1 + torch.stack(waves).sum(0)

    def draw_pose(self, count: int) -> Tensor:
        """Scale, turn, shift and flip a little."""
        scale, angle = self.draw_between(0.8, 1.25, count), self.draw_between(-0.25, 0.25, count)
        cos, sin = scale * angle.cos(), scale * angle.sin()
        flip = torch.where(self.draw_booleans(0.5, count), -1.0, 1.0)
        turn = torch.stack([torch.stack([cos * flip, -sin], 1), torch.stack([sin * flip, cos], 1)], 1)
        return torch.cat([turn, self.draw_between(-0.3, 0.3, count, 2, 1)], 2)

    def shade(self, ground: Tensor, opacity: Tensor) -> Tensor:
        """Darken the ground under a blob and just below it, some more, some less."""
        shadow = F.avg_pool2d(F.pad(opacity, (2, 2, 4, 0)), 5, 1)
        shaded: Tensor = ground * (1 - self.draw_between(0, 0.45, len(ground), 1, 1, 1) * shadow)
        return shaded


def find_calmest(images: Tensor, side: int, busiest: bool = False) -> Tensor:
    """Top left corner y x (N, 2) of each image's window of ``side`` px in which brightness changes least, or most.

    Images are (N, 3, H, W) uint8; windows begin at each eighth pixel.
    """
    change = torch.cat([F.avg_pool2d(_change(some), side, _STRIDE) for some in torch.split(images, 256)])[:, 0]
    best = (change if busiest else -change).flatten(1).argmax(1)
    return _STRIDE * torch.stack([best // change.shape[2], best % change.shape[2]], 1)


def _change(images: Tensor) -> Tensor:
    """How much brightness changes to the next pixel below and to the right, (N, 1, H, W)."""
    gray = images.float().mean(1, keepdim=True)
    across = F.pad((gray[..., 1:] - gray[..., :-1]).abs(), (0, 1))
    return across + F.pad((gray[..., 1:, :] - gray[..., :-1, :]).abs(), (0, 0, 0, 1))


def _posed(x: Tensor, pose: Tensor) -> Tensor:
    grid = F.affine_grid(pose, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
