"""Learned queries that read a map: the decoder of DETR, as SelfMask and ZUTIS have it.

B images, N tokens of the map they read, Q queries, C width, L layers, h w cells.  Norms follow each part (post-norm), the
activation is ReLU, there is no dropout.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from annofree.errors import InputError

__all__ = ["DecoderLayer", "QueryDecoder", "compute_sine_positions"]

_TEMPERATURE, _EPS = 1e4, 1e-6


class DecoderLayer(nn.Module):
    """Self-attention among queries, cross-attention to the map, then an MLP.

    The children have the names of ``torch.nn.TransformerDecoderLayer``, whose state dict fits; what is added here are
    positions, which are added to queries and keys but not to values.
    """

    def __init__(self, width: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, ffn), nn.Linear(ffn, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, memory: Tensor, keys: Tensor, places: Tensor) -> Tensor:
        """Queries ``x`` (B, Q, C) at ``places`` (B, Q, C) read ``memory`` (B, N, C), found by ``keys`` (B, N, C)."""
        at = x + places
        x = self.norm1(x + self.self_attn(at, at, x, need_weights=False)[0])
        x = self.norm2(x + self.multihead_attn(x + places, keys, memory, need_weights=False)[0])
        normed: Tensor = self.norm3(x + self.linear2(F.relu(self.linear1(x))))
        return normed


class QueryDecoder(nn.Module):
    """A stack of layers that start as copies of one, so with equal weights, and one last norm that all share.

    Raises InputError for a width that the heads do not divide.
    """

    def __init__(self, width: int, layers: int, heads: int, ffn: int) -> None:
        super().__init__()
        if width % heads:
            raise InputError(f"expected a decoder width that its {heads} heads divide, got {width}")
        first = DecoderLayer(width, heads, ffn)
        self.layers = nn.ModuleList(copy.deepcopy(first) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, queries: Tensor, memory: Tensor, positions: Tensor | None = None) -> Tensor:
        """The normalized output of each layer, (B, L, Q, C).

        ``queries`` (Q, C) are learned query positions: query contents start at zero.  ``memory`` (B, N, C) is the key and value
        map; ``positions`` (N, C) are added to its keys, None adds nothing (SelfMask).
        """
        places = queries.expand(len(memory), -1, -1)
        keys = memory if positions is None else memory + positions
        x, seen = torch.zeros_like(places), []
        for layer in self.layers:
            x = layer(x, memory, keys, places)
            seen.append(self.norm(x))
        return torch.stack(seen, 1)


def compute_sine_positions(grid: tuple[int, int], width: int, device: torch.device | str = "cpu") -> Tensor:
    """Sine embedding of each cell of a ``grid`` (h, w), (h * w, C) row by row: half of the channels encode y, the other half x.

    Rows count 1 .. h, scaled to 0 .. 2 pi, over wavelengths from 1 to 10,000; sine and cosine alternate (DETR, normalized).
    Raises InputError for a width that is no multiple of 4.

    >>> compute_sine_positions((1, 2), 4).round(decimals=2).abs().tolist()
    [[0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0]]
    """
    if width % 4:
        raise InputError(f"expected a width that is a multiple of 4, to tell y and x by sine and cosine, got {width}")
    y, x = (_waves(side, width // 2, device) for side in grid)
    cells = torch.cat([y[:, None].expand(-1, grid[1], -1), x[None].expand(grid[0], -1, -1)], -1)
    return cells.reshape(-1, width)


def _waves(side: int, channels: int, device: torch.device | str) -> Tensor:
    """Sine and cosine of 1 .. ``side`` at ``channels`` / 2 wavelengths, (side, channels)."""
    place = torch.arange(1, side + 1, device=device) / (side + _EPS) * (2 * math.pi)
    angle = place[:, None] / _TEMPERATURE ** (torch.arange(0, channels, 2, device=device) / channels)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
