"""SelfMask's network (Shin et al., CVPRW 2022): queries that read DINO's tokens each draw the image's most salient thing.

    image -> ViT -> tokens ----------------> six-layer query decoder -> queries -> objectness, by an MLP
                       `-> twice as many, bilinear ---------------> x ----'  `-> masks, sigmoid of the dot product

B images, L decoder layers, Q queries, C width, h w patches, 2h 2w cells of a mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from annofree.errors import InputError
from annofree.features.query_decoder import QueryDecoder
from annofree.features.towers.positions import resize_positions

__all__ = ["SelfMaskConfig", "SelfMaskNetwork", "SelfMaskOutput"]


@dataclass(frozen=True)
class SelfMaskConfig:
    """Network configuration; the default is the released one with 20 queries on DINO ViT-S/8."""

    # of the encoder, by timm's name (released)
    architecture: str = "vit_small_patch8_224"
    # what else timm is told of the encoder
    model_args: Mapping[str, Any] = field(default_factory=dict)
    # Q, masks that are proposed an image (released)
    queries: int = 20
    # L, of the decoder (released, as DETR)
    layers: int = 6
    # of attention in each layer of the decoder (released)
    heads: int = 6
    # width of the feed-forward part of each layer of the decoder: four times the encoder's (released)
    ffn: int = 1536
    # of each color of pixels in 0 .. 1, taken away; ImageNet's (released)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    # by which each color is then divided; likewise
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


class SelfMaskOutput(NamedTuple):
    """Output of each decoder layer: ``masks`` (B, L, Q, 2h, 2w) and ``objectness`` (B, L, Q), both in 0 .. 1."""

    masks: Tensor
    objectness: Tensor


class SelfMaskNetwork(nn.Module):
    """The network.  Children: ``encoder`` (timm's names, which are DINO's), ``decoder``, ``query_embed``, ``objectness``.

    The decoder reads the tokens themselves, without positions; masks are predicted at twice the resolution.  Raises InputError
    for an architecture that is no plain vision transformer.
    """

    def __init__(self, config: SelfMaskConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _encoder(config)
        width = self.encoder.embed_dim
        self.decoder = QueryDecoder(width, config.layers, config.heads, config.ffn)
        self.query_embed = nn.Parameter(torch.randn(config.queries, width))
        self.objectness = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    @property
    def patch(self) -> int:
        """Side of a patch in px."""
        return int(self.encoder.patch_embed.patch_size[0])

    def forward(self, pixels: Tensor) -> SelfMaskOutput:
        """Draw masks for normalized ``pixels`` (B, 3, H, W), whose sides are whole patches."""
        tokens = self.extract_tokens(pixels)
        queries = self.decoder(self.query_embed, tokens.flatten(2).transpose(1, 2))
        fine = F.interpolate(tokens, scale_factor=2, mode="bilinear", align_corners=False)
        masks = torch.einsum("blqc,bchw->blqhw", queries, fine).sigmoid()
        return SelfMaskOutput(masks, self.objectness(queries)[..., 0].sigmoid())

    def extract_tokens(self, pixels: Tensor) -> Tensor:
        """Patch tokens after the final norm, (B, C, h, w); positions are resized bicubically by size."""
        e = self.encoder
        cells = e.patch_embed.proj(pixels)
        grid = cells.shape[-2], cells.shape[-1]
        positions = resize_positions(e.pos_embed[0], grid, "bicubic", e.patch_embed.grid_size)
        x = torch.cat([e.cls_token.expand(len(cells), -1, -1), cells.flatten(2).transpose(1, 2)], 1) + positions
        normed: Tensor = e.norm(e.blocks(e.norm_pre(x)))[:, 1:].transpose(1, 2)
        return normed.reshape(*normed.shape[:2], *grid)


def _encoder(config: SelfMaskConfig) -> Any:
    if not timm.is_model(config.architecture):
        raise InputError(f"expected the name of a timm model as architecture, got {config.architecture!r}")
    try:
        model = timm.create_model(config.architecture, pretrained=False, **{**config.model_args, "num_classes": 0})
    except (RuntimeError, TypeError, ValueError, AssertionError) as problem:
        raise InputError(f"expected model_args of {config.architecture}, but it cannot be built: {problem}") from problem
    plain = isinstance(model, VisionTransformer) and model.num_prefix_tokens == 1 and model.pos_embed is not None
    if not plain or model.no_embed_class:
        raise InputError(f"expected a vision transformer with a class token alone, such as DINO's, got {config.architecture}")
    return model
