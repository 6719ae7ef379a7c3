"""Dense features of a CLIP vision transformer.

B images, N patches, C width, D embedding, h w cells.  The modules are open_clip's; nothing in them is changed.
"""

from __future__ import annotations

from typing import get_args

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError, build_unknown_error
from annofree.features.towers.positions import PositionRule, resize_positions
from annofree.features.towers.regions import pool_regions
from annofree.ops.linear import apply_linear
from annofree.protocols import DensePath

__all__ = ["VitTower", "pass_alone"]

_SURGERY_BLOCKS = 6


class VitTower:
    """Named outputs of open_clip's VisionTransformer for normalized images (B, 3, H, W) of any size.

    ``stride`` is the side of a patch in px, ``native`` the side that the tower was trained at; pixels beyond the last
    whole patch at the bottom and on the right are ignored.  ``positions`` is the rule by which positions are resized;
    None takes each path's own, bilinear for ``surgery`` and bicubic elsewhere.
    """

    default_path: DensePath = "surgery"
    paths: tuple[DensePath, ...] = ("value", "value+mlp", "surgery", "attention")

    def __init__(self, visual: VisionTransformer, positions: PositionRule | None = None) -> None:
        _check_plain(visual)
        self.visual, self.positions = visual, positions
        self.stride = int(visual.patch_size[0])
        self.native = int(min(visual.image_size))
        self.dimension = int(visual.proj.shape[1])

    def encode_image(self, x: Tensor) -> Tensor:
        """The embedding of each image, (B, D), not normalized: the class token's, or the mean of the patches'.

        The tower was trained with one or the other; its last LayerNorm comes before the mean, or after it.
        """
        tokens = self._last(x)
        if self.visual.pool_type == "tok":
            return self._projected(tokens[:, 0])
        if self.visual.final_ln_after_pool:
            return self._projected(tokens[:, 1:].mean(1))
        return self._projected(tokens[:, 1:]).mean(1)

    def extract_tokens(self, x: Tensor, path: DensePath) -> Tensor:
        """Text-aligned features of the class token and of each patch, (B, 1 + N, D), not normalized.

        ``value``: value and output projections of the last block alone.  ``value+mlp``: these with the residual and the MLP
        around them (MaskCLIP).  ``surgery``: value-value attention added up over the last six blocks, with no MLP; the
        class token is the ordinary one (CLIP Surgery).  ``attention``: the last tokens as they are.
        """
        if path not in get_args(DensePath):
            raise build_unknown_error("dense path", path, get_args(DensePath))
        if path == "surgery":
            return self._projected(self._surgery(x))
        if path == "attention":
            return self._projected(self._last(x))
        before, block = self._before(x, 1), self.visual.transformer.resblocks[-1]
        return self._projected(pass_alone(block, before) if path == "value+mlp" else _value(block, before))

    def extract_before_last(self, x: Tensor) -> Tensor:
        """The tokens that enter the last block, class token first, (B, 1 + N, C)."""
        return self._before(x, 1)

    def align_alone(self, before: Tensor, x: Tensor) -> Tensor:
        """What ``value+mlp`` makes of these tokens of images ``x`` (B, 3, H, W), (B, D, h, w), not normalized."""
        return self.gather_cells(self._projected(pass_alone(self.visual.transformer.resblocks[-1], before)), x)

    def gather_cells(self, tokens: Tensor, x: Tensor) -> Tensor:
        """Tokens (B, 1 + N, C) of images ``x`` (B, 3, H, W) without the class token, on their grid, (B, C, h, w)."""
        return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), tokens.shape[-1], *self._grid(x))

    def extract_values(self, x: Tensor) -> Tensor:
        """The last block's values through its output projection, before the last LayerNorm, (B, C, h, w)."""
        before, block = self._before(x, 1), self.visual.transformer.resblocks[-1]
        return self.gather_cells(_value(block, before), x)

    def align_values(self, cells: Tensor) -> Tensor:
        """Such values, or means of them, (C, h, w) in the space of texts, (D, h, w), not normalized."""
        return self._projected(cells.movedim(0, -1)).movedim(-1, 0)

    def encode_dense(self, x: Tensor, path: DensePath) -> Tensor:
        """Text-aligned features of each patch, (B, D, h, w), not normalized; ``tokens`` tells the paths."""
        return self.gather_cells(self.extract_tokens(x, path), x)

    def encode_dense_and_class(self, x: Tensor, path: DensePath) -> tuple[Tensor, Tensor]:
        """The same, and the class token's features of the same pass, (B, D)."""
        tokens = self.extract_tokens(x, path)
        return self.gather_cells(tokens, x), tokens[:, 0]

    def extract_patches(self, x: Tensor) -> Tensor:
        """The last block's patch tokens after the last LayerNorm, unprojected, (B, C, h, w) (the encoding of ZUTIS)."""
        return self.gather_cells(self.visual.ln_post(self._last(x)), x)

    def extract_keys(self, x: Tensor) -> Tensor:
        """The last block's keys, sent through its output projection as MaskCLIP does to smooth by them, (B, C, h, w)."""
        block = self.visual.transformer.resblocks[-1]
        keys = _projections(block, block.ln_1(self._before(x, 1)))[1]
        return self.gather_cells(block.attn.out_proj(keys), x)

    def encode_regions(self, x: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """One embedding a box, (N, D), not normalized: the mean of its dense features by the default path, by RoIAlign.

        Boxes (N, 4) are in px of the image of ``size`` (H, W) that ``x`` (1, 3, ., .) shows.
        """
        return pool_regions(self.encode_dense(x, self.default_path), boxes, size)

    def extract_conv4(self, x: Tensor, shifts: int = 1) -> Tensor:
        """Raise InputError: there is no conv4_x here."""
        raise InputError("a ViT has no conv4_x to tell objects apart by; use a CLIP ResNet such as RN50 or RN50x64")

    def _grid(self, x: Tensor) -> tuple[int, int]:
        return x.shape[-2] // self.stride, x.shape[-1] // self.stride

    def _projected(self, tokens: Tensor) -> Tensor:
        projected: Tensor = self.visual.ln_post(tokens) @ self.visual.proj
        return projected

    def _embedded(self, x: Tensor, rule: PositionRule) -> Tensor:
        """Class and patch tokens with positions, (B, 1 + N, C), as they enter the first block."""
        v, grid = self.visual, self._grid(x)
        if not all(grid):
            raise InputError(f"expected an image of at least {self.stride} px a side, got {tuple(x.shape[-2:])}")
        patches = v.conv1(x.to(v.conv1.weight.dtype, memory_format=torch.channels_last)).flatten(2).transpose(1, 2)
        first = v.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        positions = resize_positions(v.positional_embedding, grid, rule, v.grid_size)
        tokens: Tensor = v.ln_pre(torch.cat([first, patches], 1) + positions.to(patches.dtype))
        return tokens

    def _before(self, x: Tensor, left: int, rule: PositionRule = "bicubic") -> Tensor:
        """The tokens that enter the block from which on ``left`` blocks are left."""
        tokens, blocks = self._embedded(x, self.positions or rule), self.visual.transformer.resblocks
        for block in blocks[: max(0, len(blocks) - left)]:
            tokens = _through(block, tokens)
        return tokens

    def _last(self, x: Tensor) -> Tensor:
        return self._before(x, 0)

    def _surgery(self, x: Tensor) -> Tensor:
        """The two paths of CLIP Surgery: the original path feeds the new one, which adds value-value attention only."""
        ordinary = new = self._before(x, _SURGERY_BLOCKS, "bilinear")
        for block in self.visual.transformer.resblocks[-_SURGERY_BLOCKS:]:
            value = _projections(block, block.ln_1(ordinary))[2]
            new = new + block.ls_1(block.attn.out_proj(_attended(block, value, value, value)))
            ordinary = _through(block, ordinary)
        return torch.cat([ordinary[:, :1], new[:, 1:]], 1)


def _check_plain(visual: VisionTransformer) -> None:
    """Raise InputError unless this is a plain CLIP ViT (pooling, blocks, square patches)."""
    said = "expected a plain CLIP ViT with a class token, got one with "
    if visual.attn_pool is not None:
        raise InputError(said + "an attentional pool")
    if visual.pool_type not in ("tok", "avg"):
        raise InputError(said + f"{visual.pool_type!r} pooling")
    other = [type(b).__name__ for b in visual.transformer.resblocks if type(b) is not ResidualAttentionBlock]
    if other:
        raise InputError(said + f"blocks of {other[0]}")
    if len(set(visual.patch_size)) > 1:
        raise InputError(said + f"patches of {visual.patch_size} px")


def _projections(block: ResidualAttentionBlock, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of normalized tokens, each (B, 1 + N, C), heads side by side."""
    query, key, value = apply_linear(tokens, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, -1)
    return query, key, value


def pass_alone(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """Pass tokens (B, 1 + N, C) through a block in which each attends to itself alone; residual and MLP stay."""
    return _with_mlp(block, tokens + _value(block, tokens))


def _value(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """The value and output projections of tokens, as if each attended to itself alone."""
    normed, width = block.ln_1(tokens), tokens.shape[-1]
    value = apply_linear(normed, block.attn.in_proj_weight[2 * width :], block.attn.in_proj_bias[2 * width :])
    projected: Tensor = block.ls_1(block.attn.out_proj(value))
    return projected


def _attended(block: ResidualAttentionBlock, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention head by head, scaled by head width ** -0.5, (B, 1 + N, C)."""
    heads = block.attn.num_heads
    shape = (*query.shape[:2], heads, query.shape[2] // heads)
    q, k, v = (t.reshape(shape).transpose(1, 2) for t in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def _with_mlp(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    added: Tensor = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    return added


def _through(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """One ordinary block, whose attention never holds all weights at once."""
    attended = _attended(block, *_projections(block, block.ln_1(tokens)))
    return _with_mlp(block, tokens + block.ls_1(block.attn.out_proj(attended)))
