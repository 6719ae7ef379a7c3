"""The image towers of TIPSv2 and SigLIP 2, read from the inside.

B images, N patches, C width, D embedding, h w cells.  The modules are transformers'; nothing in them is changed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from annofree.errors import InputError, build_unknown_error
from annofree.features.towers.regions import pool_regions
from annofree.protocols import DensePath

__all__ = ["PatchTower", "SiglipTower", "TipsTower"]


class PatchTower:
    """Named outputs of a plain vision transformer for normalized images (B, 3, H, W) of any size; who inherits names its parts.

    Pixels beyond the last whole patch at the bottom and on the right are ignored; positions are resized as the model does.
    """

    default_path: DensePath = "value+mlp"
    paths: tuple[DensePath, ...] = ("value", "value+mlp", "attention")
    first = 0  # tokens ahead of those of the patches

    def __init__(self, visual: Any) -> None:
        self.visual = visual
        self.stride, self.native = int(visual.config.patch_size), int(visual.config.image_size)
        self.dimension = int(visual.config.hidden_size)

    def encode_dense(self, x: Tensor, path: DensePath) -> Tensor:
        """Text-aligned features of each patch, (B, D, h, w), not normalized.

        ``value``: value and output projections of the last block alone; ``value+mlp``: these with the residual and the MLP
        around them (MaskCLIP, and TIPSv2's released segmentation); ``attention``: the last tokens as they are.
        """
        if path not in self.paths:
            raise build_unknown_error("dense path", path, self.paths)
        if path == "attention":
            return self._map(self._align(self._last(x)), x)
        before, block = self._before(x), self._blocks[-1]
        value = self._value(block, before)
        return self._map(self._align(value if path == "value" else self._with_mlp(block, before + value)), x)

    def encode_dense_and_class(self, x: Tensor, path: DensePath) -> tuple[Tensor, Tensor]:
        """The same, and no class token, (0, D): what meets text here is another one in each family, or none."""
        cells = self.encode_dense(x, path)
        return cells, cells.new_zeros(0, cells.shape[1])

    def extract_values(self, x: Tensor) -> Tensor:
        """The last block's values through its output projection, before what follows the blocks, (B, C, h, w)."""
        return self._map(self._value(self._blocks[-1], self._before(x)), x)

    def align_values(self, cells: Tensor) -> Tensor:
        """Such values, or means of them, (C, h, w) in the space of texts, (D, h, w), not normalized."""
        tokens = cells.flatten(1).T[None]
        return self._align(tokens)[0].T.reshape(-1, *cells.shape[1:])

    def encode_regions(self, x: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """One embedding a box, (N, D), not normalized: the mean of its dense features by the default path, by RoIAlign."""
        return pool_regions(self.encode_dense(x, self.default_path), boxes, size)

    def extract_patches(self, x: Tensor) -> Tensor:
        """The last block's patch tokens after the last LayerNorm, (B, C, h, w)."""
        return self._map(self._norm(self._last(x)), x)

    def extract_keys(self, x: Tensor) -> Tensor:
        """The last block's keys, sent through its output projection as MaskCLIP does to smooth by them, (B, C, h, w)."""
        return self._map(self._keys(self._blocks[-1], self._before(x)), x)

    def extract_conv4(self, x: Tensor, shifts: int = 1) -> Tensor:
        """Raise InputError: there is no conv4_x here."""
        raise InputError("a ViT has no conv4_x to tell objects apart by; use a CLIP ResNet such as RN50 or RN50x64")

    @property
    def _blocks(self) -> nn.ModuleList:
        raise NotImplementedError

    def _norm(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError

    def _align(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, C) of the last block into the space of texts, each by itself, (B, T, D)."""
        raise NotImplementedError

    def _value(self, block: Any, tokens: Tensor) -> Tensor:
        raise NotImplementedError

    def _keys(self, block: Any, tokens: Tensor) -> Tensor:
        raise NotImplementedError

    def _with_mlp(self, block: Any, tokens: Tensor) -> Tensor:
        raise NotImplementedError

    def _embed(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _before(self, x: Tensor, left: int = 1) -> Tensor:
        """The tokens that enter the block from which on ``left`` blocks are left."""
        height, width = (n - n % self.stride for n in x.shape[-2:])
        if not (height and width):
            raise InputError(f"expected an image of at least {self.stride} px a side, got {tuple(x.shape[-2:])}")
        tokens, turns = self._embed(x[..., :height, :width]), self._rotate((height // self.stride, width // self.stride))
        for block in self._blocks[: len(self._blocks) - left]:
            tokens = block(tokens, turns)
        return tokens

    def _rotate(self, grid: tuple[int, int]) -> Tensor | None:
        """What blocks turn queries and keys by on a grid (h, w), where they do."""
        return None

    def _last(self, x: Tensor) -> Tensor:
        return self._before(x, 0)

    def _map(self, tokens: Tensor, x: Tensor) -> Tensor:
        """Tokens (B, T, C) without the first ones, on the grid of the image, (B, C, h, w)."""
        grid = (x.shape[-2] // self.stride, x.shape[-1] // self.stride)
        return tokens[:, self.first :].transpose(1, 2).reshape(len(tokens), tokens.shape[-1], *grid)


class TipsTower(PatchTower):
    """The image tower of TIPSv2: class token and registers ahead of the patches, layer scale, one LayerNorm at the end.

    The class token, which was trained with captions of the web, stands for the image.
    """

    def __init__(self, visual: Any) -> None:
        super().__init__(visual)
        self.first = 1 + int(visual.config.num_register_tokens)

    def encode_image(self, x: Tensor) -> Tensor:
        """The embedding of each image, (B, D), not normalized."""
        return self._norm(self._last(x))[:, 0]

    @property
    def _blocks(self) -> nn.ModuleList:
        blocks: nn.ModuleList = self.visual.encoder.layer
        return blocks

    def _embed(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.visual.embeddings(x)
        return tokens

    def _norm(self, tokens: Tensor) -> Tensor:
        normed: Tensor = self.visual.layernorm(tokens)
        return normed

    def _align(self, tokens: Tensor) -> Tensor:
        return self._norm(tokens)

    def _value(self, block: Any, tokens: Tensor) -> Tensor:
        attention = block.attention
        value: Tensor = block.layer_scale1(attention.o_proj(attention.v_proj(block.norm1(tokens))))
        return value

    def _keys(self, block: Any, tokens: Tensor) -> Tensor:
        keys: Tensor = block.attention.o_proj(block.attention.k_proj(block.norm1(tokens)))
        return keys

    def _with_mlp(self, block: Any, tokens: Tensor) -> Tensor:
        out: Tensor = tokens + block.layer_scale2(block.mlp(block.norm2(tokens)))
        return out


class SiglipTower(PatchTower):
    """The image tower of SigLIP and SigLIP 2 at a fixed size: patches alone, and a head that pools them by attention.

    A patch is brought into the space of texts by the head that pools it alone: its value, then the head's MLP.
    """

    def encode_image(self, x: Tensor) -> Tensor:
        """The embedding of each image, (B, D), not normalized."""
        pooled: Tensor = self.visual.head(self._norm(self._last(x)))
        return pooled

    @property
    def _blocks(self) -> nn.ModuleList:
        blocks: nn.ModuleList = self.visual.encoder.layers
        return blocks

    def _embed(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.visual.embeddings(x, interpolate_pos_encoding=True)
        return tokens

    def _norm(self, tokens: Tensor) -> Tensor:
        normed: Tensor = self.visual.post_layernorm(tokens)
        return normed

    def _align(self, tokens: Tensor) -> Tensor:
        head, attention = self.visual.head, self.visual.head.attention
        width = attention.embed_dim
        value = torch.nn.functional.linear(
            self._norm(tokens), attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :]
        )
        pooled = attention.out_proj(value)
        aligned: Tensor = pooled + head.mlp(head.layernorm(pooled))
        return aligned

    def _value(self, block: Any, tokens: Tensor) -> Tensor:
        value: Tensor = block.self_attn.out_proj(block.self_attn.v_proj(block.layer_norm1(tokens)))
        return value

    def _keys(self, block: Any, tokens: Tensor) -> Tensor:
        keys: Tensor = block.self_attn.out_proj(block.self_attn.k_proj(block.layer_norm1(tokens)))
        return keys

    def _with_mlp(self, block: Any, tokens: Tensor) -> Tensor:
        out: Tensor = tokens + block.mlp(block.layer_norm2(tokens))
        return out
