"""The layout of weights that ZUTIS and SelfMask were released in: names and shapes, as their published code builds them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["Shapes", "fill_shapes", "list_selfmask_shapes", "list_zutis_shapes"]

Shapes = dict[str, tuple[int, ...]]


def fill_shapes(shapes: Shapes, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return small random numbers of these shapes, from one seed."""
    generator = torch.Generator().manual_seed(0)
    return {name: (torch.randn(shape, generator=generator) * 0.05).to(dtype) for name, shape in shapes.items()}


def list_zutis_shapes(patch: int, width: int = 768, layers: int = 12, text: int = 512, side: int = 224) -> Shapes:
    """A CLIP ViT, two MLPs, DETR's decoder, and queries that are a bare parameter."""
    encoder: Shapes = {
        "class_embedding": (width,),
        "positional_embedding": ((side // patch) ** 2 + 1, width),
        "proj": (width, text),
        "conv1.weight": (width, 3, patch, patch),
    }
    encoder |= _norms(["ln_pre", "ln_post"], width)
    for block in (f"transformer.resblocks.{n}." for n in range(layers)):
        encoder |= _under(block, _attention("attn", width) | _norms(["ln_1", "ln_2"], width))
        encoder |= _under(block, _linear("mlp.c_fc", width, 4 * width) | _linear("mlp.c_proj", 4 * width, width))
    mlp = _mlp([width, 256, 256, width])
    return {
        "query_embed": (100, width),
        **_under("encoder.", encoder),
        **_under("ffn1.", mlp),
        **_under("ffn2.", mlp),
        **_under("decoder.", _decoder(width, 2048)),
    }


def list_selfmask_shapes(queries: int, width: int = 384, layers: int = 12, patch: int = 8) -> Shapes:
    """DINO's ViT, the same decoder, queries that are a bare parameter, and an MLP that gives the objectness."""
    encoder: Shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, (224 // patch) ** 2 + 1, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
    }
    encoder |= _norms(["norm"], width)
    for block in (f"blocks.{n}." for n in range(layers)):
        encoder |= _under(block, _norms(["norm1", "norm2"], width))
        for name, given, made in (("attn.qkv", 1, 3), ("attn.proj", 1, 1), ("mlp.fc1", 1, 4), ("mlp.fc2", 4, 1)):
            encoder |= _under(block, _linear(name, given * width, made * width))
    return {
        "query_embed": (queries, width),
        **_under("encoder.", encoder),
        **_under("decoder.", _decoder(width, 4 * width)),
        **_under("ffn.", _mlp([width, width, width, 1])),
    }


def _decoder(width: int, ffn: int) -> Shapes:
    layer = _attention("self_attn", width) | _attention("multihead_attn", width) | _norms(["norm1", "norm2", "norm3"], width)
    layer |= _linear("linear1", width, ffn) | _linear("linear2", ffn, width)
    return _norms(["norm"], width) | {k: v for n in range(6) for k, v in _under(f"layers.{n}.", layer).items()}


def _attention(name: str, width: int) -> Shapes:
    whole: Shapes = {f"{name}.in_proj_weight": (3 * width, width), f"{name}.in_proj_bias": (3 * width,)}
    return whole | _linear(f"{name}.out_proj", width, width)


def _mlp(widths: list[int]) -> Shapes:
    pairs = enumerate(pairwise(widths))
    return {k: v for n, (given, made) in pairs for k, v in _linear(f"layers.{n}", given, made).items()}


def _linear(name: str, given: int, made: int) -> Shapes:
    return {f"{name}.weight": (made, given), f"{name}.bias": (made,)}


def _norms(names: Iterable[str], width: int) -> Shapes:
    return {f"{name}.{what}": (width,) for name in names for what in ("weight", "bias")}


def _under(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}
