"""Fakes of TCL's network and of GroupViT for the paper world: they see flat colors in normalized windows, and name them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.structures import Image, Vocabulary
from annofree.testing.fakes import FakeClip
from annofree.testing.paper_world import NAMES, classify_pixels

__all__ = ["FakeGroupVit", "FakeTcl"]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_KINDS = len(NAMES) + 1  # classes, then the paper


class FakeTcl:
    """A decoder whose cells of 4 px, and CLIP's of 16 px, have the feature of the color in their middle.

    >>> fine, known = FakeTcl().encode(torch.zeros(1, 3, 32, 48))
    >>> tuple(fine.shape), tuple(known.shape)
    ((1, 64, 8, 12), (1, 64, 2, 3))
    """

    patch = 16
    device = torch.device("cpu")
    line = (10.0, -2.5)
    dimension = FakeClip().dimension

    @property
    def provenance(self) -> dict[str, Any]:
        """Name, license and supervision tier: there are no weights."""
        return {"name": "fake-tcl", "licence": "Apache-2.0", "tier": "S0"}

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Unit features of windows (B, 3, H, W), (B, D, H / 4, W / 4) and (B, D, H / 16, W / 16)."""
        axes = torch.eye(self.dimension)[_classify(x)].permute(0, 3, 1, 2)
        return axes[..., 2::4, 2::4], axes[..., 8::16, 8::16]


class FakeGroupVit:
    """A group for each color and one for paper; each pixel is of the group of its color.

    >>> groups, whole, shares = FakeGroupVit().group(torch.zeros(1, 3, 32, 48))
    >>> tuple(groups.shape), tuple(shares.shape)
    ((1, 7, 64), (1, 7, 32, 48))
    """

    patch = 1
    device = torch.device("cpu")
    scale = 100.0

    @property
    def provenance(self) -> dict[str, Any]:
        """Name, license and supervision tier: there are no weights."""
        return {"name": "fake-groupvit", "licence": "Apache-2.0", "tier": "S0"}

    def remarks(self, vocabulary: Vocabulary) -> list[str]:
        """The words that no color stands for."""
        return FakeClip().remarks(vocabulary)

    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        """One unit text feature a class, (K, D)."""
        return FakeClip().encode_text(vocabulary)

    def group(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unit features of groups (B, G, D) and of the whole (B, D), and of each pixel its group (B, G, H, W)."""
        seen = F.one_hot(_classify(x), _KINDS).permute(0, 3, 1, 2).float()
        groups = torch.eye(FakeClip().dimension)[:_KINDS].expand(len(x), -1, -1)
        whole = F.normalize(torch.einsum("bg,bgd->bd", seen.mean((2, 3)), groups), dim=1)
        return groups, whole, seen


def _classify(x: Tensor) -> Tensor:
    """The class of each pixel of normalized windows (B, 3, H, W), (B, H, W)."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (_MEAN, _STD))
    levels = ((x * std + mean) * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return torch.stack([torch.from_numpy(np.asarray(classify_pixels(Image(np.ascontiguousarray(v)).pixels))) for v in levels])
