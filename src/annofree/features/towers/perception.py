"""The image tower of Perception Encoder (PE-Core), read from the inside.

B images, N patches, C width, D embedding, h w cells.  The modules are timm's, as open_clip holds them; nothing in them is
changed.  Patches have learned positions, and are turned by their place in each attention (RoPE).
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip.timm_model import TimmModel
from timm.layers.pos_embed_sincos import build_rotary_pos_embed
from torch import Tensor, nn

from annofree.errors import InputError
from annofree.features.towers.positions import PositionRule, resize_positions
from annofree.features.towers.transformers_vit import PatchTower

__all__ = ["PERCEPTION", "PerceptionTower"]

PERCEPTION = "vit_pe_core_"
"""How timm's names of these towers begin."""


class PerceptionTower(PatchTower):
    """The image tower of PE-Core: a class token ahead of the patches, and a head that pools all by attention.

    A patch is brought into the space of texts by the head that pools it alone: its value, the head's MLP, the projection.
    Positions are resized bilinearly unless ``positions`` is another rule.  Raises InputError for another tower of timm.
    """

    def __init__(self, visual: TimmModel, positions: PositionRule | None = None) -> None:
        trunk: Any = visual.trunk
        if not all(getattr(trunk, part, None) is not None for part in ("rope", "attn_pool", "pos_embed", "cls_token")):
            raise InputError(f"expected the tower of a PE-Core with a class token, got TimmModel of {type(trunk).__name__}")
        self.visual, self._trunk, self._rule = visual, trunk, positions or "bilinear"
        self.stride, self.native = int(trunk.patch_embed.patch_size[0]), int(visual.image_size[0])
        self.dimension, self.first = int(trunk.head.out_features), int(trunk.num_prefix_tokens)

    def encode_image(self, x: Tensor) -> Tensor:
        """The embedding of each image, (B, D), not normalized."""
        pooled: Tensor = self._trunk.forward_head(self._norm(self._last(x)))
        return pooled

    @property
    def _blocks(self) -> nn.ModuleList:
        blocks: nn.ModuleList = self._trunk.blocks
        return blocks

    def _embed(self, x: Tensor) -> Tensor:
        cells = self._trunk.patch_embed.proj(x.to(self._trunk.patch_embed.proj.weight.dtype))
        tokens = torch.cat([self._trunk.cls_token.expand(len(x), -1, -1), cells.flatten(2).transpose(1, 2)], 1)
        positions = resize_positions(self._trunk.pos_embed[0], (cells.shape[-2], cells.shape[-1]), self._rule)
        normed: Tensor = self._trunk.norm_pre(tokens + positions)
        return normed

    def _rotate(self, grid: tuple[int, int]) -> Tensor:
        rope = self._trunk.rope
        how = {
            name: getattr(rope, name) for name in ("temperature", "in_pixels", "ref_feat_shape", "grid_offset", "grid_indexing")
        }
        turns = build_rotary_pos_embed(list(grid), dim=rope.dim, device=self._trunk.pos_embed.device, **how)
        return torch.cat(turns, -1)

    def _norm(self, tokens: Tensor) -> Tensor:
        normed: Tensor = self._trunk.norm(tokens)
        return normed

    def _align(self, tokens: Tensor) -> Tensor:
        pool = self._trunk.attn_pool
        value = pool.proj(pool.kv(self._norm(tokens)).chunk(2, -1)[1])
        aligned: Tensor = self._trunk.head(value + pool.mlp(pool.norm(value)))
        return aligned

    def _value(self, block: Any, tokens: Tensor) -> Tensor:
        value: Tensor = block.attn.proj(block.attn.qkv(block.norm1(tokens)).chunk(3, -1)[2])
        return value

    def _keys(self, block: Any, tokens: Tensor) -> Tensor:
        keys: Tensor = block.attn.proj(block.attn.qkv(block.norm1(tokens)).chunk(3, -1)[1])
        return keys

    def _with_mlp(self, block: Any, tokens: Tensor) -> Tensor:
        out: Tensor = tokens + block.mlp(block.norm2(tokens))
        return out
