"""The network of ZUTIS (Shin et al., CVPRW 2023): a CLIP ViT with text-aligned tokens, and queries that propose masks.

    image -> CLIP ViT -> tokens, twice as fine -> text space -> minus the map's mean -> unit features
                                  '-> stop-gradient -> MLP -> decoder of queries -> MLP -> dot -> sigmoid -> masks

B images, C width, D embedding, L decoder layers, Q queries, h w patches: whole ones, the remainder at the bottom and on the
right is ignored.  Maps have 2h x 2w cells that cover the whole image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from annofree.errors import InputError
from annofree.features.clip_network import load_clip
from annofree.features.preprocessing import map_by_size
from annofree.features.query_decoder import QueryDecoder, compute_sine_positions
from annofree.features.towers.vit import VitTower
from annofree.structures import Image

__all__ = ["Mlp", "ZutisConfig", "ZutisNetwork", "ZutisOutput", "compute_working_size", "fill_maps", "normalize_map"]

_EPS = 1e-7  # of the length of a feature, as released
_BATCH = 8  # images at once


@dataclass(frozen=True)
class ZutisConfig:
    """Network configuration; the defaults are those of the published ViT-B/16.

    Raises InputError for a size that is no whole number from 1, and for heads that do not divide the width.
    """

    # C, of the encoder's tokens, and so of the decoder's
    width: int = 768
    # of the encoder
    layers: int = 12
    # of attention in each layer of the encoder
    heads: int = 12
    # side of the encoder's patches, in px
    patch: int = 16
    # side in px of the squares that the encoder's positions were trained at
    image_size: int = 224
    # D, length of the features that meet text
    embed_dim: int = 512
    # Q, masks that are proposed an image (published)
    queries: int = 100
    # L, of the decoder of queries (released, as DETR)
    decoder_layers: int = 6
    # of attention in each layer of the decoder (released)
    decoder_heads: int = 8
    # width of the feed-forward part of each layer of the decoder (released)
    decoder_ffn: int = 2048
    # width of the hidden layers of the two MLPs around the decoder (published)
    mlp_hidden: int = 256
    # of each color of pixels in 0 .. 1, taken away; ImageNet's, though the encoder is CLIP's (released)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    # by which each color is then divided; likewise
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    # whether the encoder's activation is the one that OpenAI's weights were trained with
    quick_gelu: bool = True
    # whether the mask branch leaves the encoder alone; switched off in the paper's ablation
    stop_gradient: bool = True
    # whether cells tell where they are when masks are drawn, as they do when the decoder reads them: things that look alike are
    # then told apart by their places (ours)
    located_masks: bool = False
    # what it was trained on
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("mean", "std", "names"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        sizes = [f.name for f in fields(self) if f.type == "int"]
        for name in sizes:
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise InputError(f"expected {name} of a ZUTIS network to be a whole number from 1, got {getattr(self, name)!r}")
        for heads in ("heads", "decoder_heads"):
            if self.width % getattr(self, heads):
                raise InputError(f"expected {heads} to divide the width {self.width}, got {getattr(self, heads)}")


class ZutisOutput(NamedTuple):
    """What the network says of images.

    ``features`` (B, D, 2h, 2w) are text-aligned unit vectors, and ``lengths`` (B, 2h, 2w) their norms before normalization;
    ``masks`` (B, L, Q, 2h, 2w) are probabilities, by each layer of the decoder.
    """

    features: Tensor
    lengths: Tensor
    masks: Tensor


class Mlp(nn.Module):
    """Three linear layers with ReLU between, C to ``hidden`` to ``hidden`` to C."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, width)])

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        return self.apply_rest(self.layers[0](x))

    def apply_rest(self, x: Tensor) -> Tensor:
        """Apply the layers after the first one to its output ``x`` (..., hidden)."""
        mapped: Tensor = self.layers[2](F.relu(self.layers[1](F.relu(x))))
        return mapped


class ZutisNetwork(nn.Module):
    """ZUTIS for normalized images of any size from one patch.

    ``encoder`` has the keys of OpenAI's CLIP (open_clip's ViT); ``ffn1``, ``ffn2``, ``decoder`` and ``query_embed`` are the
    released prefixes, and within those names are those of DETR (``layers.0.self_attn``, ...), as in the released code; but for
    the queries, which are a bare parameter there.

    ``provenance`` describes the weights, and ``side`` is the best short side in px, 0 for any.
    """

    def __init__(self, config: ZutisConfig) -> None:
        super().__init__()
        self.config, self.side = config, 0
        self.provenance: dict[str, Any] = {"name": "zutis", "trained_on": list(config.names)}
        self.encoder = _encoder(config)
        self.ffn1, self.ffn2 = Mlp(config.width, config.mlp_hidden), Mlp(config.width, config.mlp_hidden)
        self.decoder = QueryDecoder(config.width, config.decoder_layers, config.decoder_heads, config.decoder_ffn)
        self.query_embed = nn.Embedding(config.queries, config.width)

    @property
    def dimension(self) -> int:
        """D, the dimension of the text-aligned features."""
        return self.config.embed_dim

    @classmethod
    def from_clip(cls, folder: Path, quick_gelu: bool | None = None, **changes: Any) -> ZutisNetwork:
        """Start from the ViT of a CLIP in open_clip's layout; the rest is random, by ``changes`` of the ZutisConfig.

        ``quick_gelu`` says which activation the weights were trained with, over the folder's configuration.  How that CLIP
        pools its tokens does not matter here.  Raises InputError for a CLIP without a plain ViT, and what ``load_clip`` raises.
        """
        visual = load_clip(folder, quick_gelu=quick_gelu).model.visual
        if not isinstance(visual, VisionTransformer):
            raise InputError(f"expected a CLIP with a ViT in {folder}, got one with {type(visual).__name__}")
        network = cls(_config_of(visual, changes))
        fill_maps(network.encoder, visual.state_dict(), f"the image tower in {folder}")
        return network

    def forward(self, pixels: Tensor, every_layer: bool = True) -> ZutisOutput:
        """Read normalized images (B, 3, H, W); L is 1, the last, without ``every_layer``."""
        tokens = VitTower(self.encoder, "bicubic+0.1-always").extract_patches(pixels)
        features, lengths = normalize_map(_finer(_channels_first(_channels_last(tokens) @ self.encoder.proj)))
        return ZutisOutput(features, lengths, self.predict_masks(tokens, every_layer))

    def predict_masks(self, tokens: Tensor, every_layer: bool = True) -> Tensor:
        """Mask probabilities (B, L, Q, 2h, 2w) from patch tokens (B, C, h, w), by the config with or without their gradient."""
        kept = tokens.detach() if self.config.stop_gradient else tokens
        # linear layers and bilinear interpolation commute: fewer cells, then fewer channels, and the same up to rounding
        first = _finer(_channels_first(self.ffn1.layers[0](_channels_last(kept))))
        grid = (first.shape[-2], first.shape[-1])
        memory = self.ffn1.apply_rest(_channels_last(first).flatten(1, 2))
        places = compute_sine_positions(grid, self.config.width, memory.device).to(memory.dtype)
        seen = self.decoder(self.query_embed.weight, memory, places)
        units = F.normalize(self.ffn2(seen if every_layer else seen[:, -1:]), dim=-1)
        drawn = memory + places if self.config.located_masks else memory
        logits = torch.einsum("blqc,bnc->blqn", units, drawn)
        return torch.sigmoid(logits.float()).view(*logits.shape[:-1], *grid)

    @torch.inference_mode()
    def propose(self, images: Sequence[Image], side: int = 0, longest: int = 0) -> list[ZutisOutput]:
        """Read images in batches of one size; one output per image, without B, with ``masks`` (Q, 2h, 2w) of the last layer.

        ``side`` and ``longest`` say at which size, see ``compute_working_size``.
        """

        def see(same: list[Image], size: tuple[int, int]) -> list[ZutisOutput]:
            batches = (same[start : start + _BATCH] for start in range(0, len(same), _BATCH))
            seen = (self(torch.cat([self._pixels(i, size) for i in some]), every_layer=False) for some in batches)
            return [ZutisOutput(f, n, m[0]) for out in seen for f, n, m in zip(*out, strict=True)]

        return map_by_size(images, lambda i: compute_working_size(i.size, self.config.patch, side, longest), see)

    def _pixels(self, image: Image, size: tuple[int, int]) -> Tensor:
        """An image at ``size`` (H, W), bilinear with antialiasing, normalized, (1, 3, H, W)."""
        x = torch.tensor(image.pixels).to(self.query_embed.weight.device).permute(2, 0, 1)[None].float() / 255
        if size != image.size:
            x = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
        mean, std = (x.new_tensor(v).view(3, 1, 1) for v in (self.config.mean, self.config.std))
        return (x - mean) / std


def compute_working_size(size: tuple[int, int], patch: int, side: int = 0, longest: int = 0) -> tuple[int, int]:
    """At which (H, W) an image of ``size`` is read.

    Its own size, or the short side at ``side`` px with the long side at most ``longest``; 0 means no limit.  No side
    is under a ``patch``.

    >>> small = compute_working_size((3, 2048), 16, longest=1024)
    >>> compute_working_size((480, 640), 16), compute_working_size((480, 640), 16, side=240), small
    ((480, 640), (240, 320), (16, 1024))
    """
    scale = side / min(size) if side else 1.0
    if longest and max(size) * scale > longest:
        scale = longest / max(size)
    height, width = (max(patch, int(n * scale)) for n in size)
    return height, width


def normalize_map(projected: Tensor) -> tuple[Tensor, Tensor]:
    """Make unit vectors (B, D, h, w) of ``projected`` ones after a LayerNorm over each whole map, and their lengths (B, h, w).

    That norm, over h, w and D at once and without weights, subtracts one mean from all values and scales them alike; the scale
    cancels in the unit vectors, so only the mean matters.  Lengths are those before scaling.
    """
    exact = projected.float()  # also where the rest runs in half precision
    centerd = exact - exact.mean((1, 2, 3), keepdim=True)
    lengths = centerd.norm(dim=1, keepdim=True)
    return centerd / (lengths + _EPS), lengths[:, 0]


def fill_maps(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load weights strictly, as float32; raises InputError for missing or unexpected weights and for other shapes."""
    expected = {k: v.shape for k, v in module.state_dict().items()}
    shapes = [k for k in expected if k in state and state[k].shape != expected[k]]
    for said, names in (
        ("lacks", sorted(expected.keys() - state.keys())),
        ("also has", sorted(state.keys() - expected.keys())),
        ("has in other shapes", [f"{k} {tuple(state[k].shape)} for {tuple(expected[k])}" for k in shapes]),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise InputError(f"expected the weights of a ZUTIS network, but {what} {said} {', '.join(names[:3])}{more}")
    module.load_state_dict({k: v.float() for k, v in state.items()}, strict=True)


def _encoder(config: ZutisConfig) -> VisionTransformer:
    return VisionTransformer(
        config.image_size,
        config.patch,
        config.width,
        config.layers,
        config.heads,
        4.0,
        output_dim=config.embed_dim,
        act_layer=QuickGELU if config.quick_gelu else nn.GELU,
    )


def _config_of(visual: VisionTransformer, changes: Mapping[str, Any]) -> ZutisConfig:
    block = visual.transformer.resblocks[0]
    own = {
        "width": int(visual.conv1.out_channels),
        "layers": len(visual.transformer.resblocks),
        "heads": int(block.attn.num_heads),
        "patch": int(visual.patch_size[0]),
        "image_size": int(visual.image_size[0]),
        "embed_dim": int(visual.proj.shape[1]),
        "quick_gelu": isinstance(block.mlp.gelu, QuickGELU),
    }
    return ZutisConfig(**{**own, **changes})


def _finer(maps: Tensor) -> Tensor:
    """Twice as many cells each way, bilinear by cell centers."""
    return F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)


def _channels_last(maps: Tensor) -> Tensor:
    return maps.permute(0, 2, 3, 1)


def _channels_first(maps: Tensor) -> Tensor:
    return maps.permute(0, 3, 1, 2)
