"""The image tower of a CLIP ResNet, read from the inside.

B images, D embedding, C channels, h w cells.  The modules are open_clip's; nothing in them is changed.
"""

from __future__ import annotations

import torch
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from annofree.errors import InputError
from annofree.features.towers.positions import PositionRule, resize_positions
from annofree.ops.grids import shift_images, stitch_maps
from annofree.protocols import DensePath

__all__ = ["CONV4_STRIDE", "ResNetTower", "pool_attention", "project_values"]

CONV4_STRIDE = 16
"""Pixels from one cell of conv4_x to the next."""

_PHASES = {1: (1, 1), 2: (1, 2), 4: (2, 2)}
"""Moves a side -> the copies a side that part where layer2 and layer3 thin the cells."""


def pool_attention(pool: AttentionPool2d, x: Tensor, rule: PositionRule = "bicubic") -> Tensor:
    """Pool layer4 features (B, C, h, w) of any size into (B, D), as the tower does at its own size.

    The position embedding is resized to (h, w) for this call.
    """
    tokens = _tokens(pool, x, rule)
    return _attended(pool, tokens[:1], tokens, pool.q_proj, pool.k_proj)[0]


def project_values(pool: AttentionPool2d, x: Tensor) -> Tensor:
    """Send each cell of (B, C, h, w) through the value and output projections of the pool, (B, D, h, w).

    This is the output of a cell that attends to itself only: the dense, text-aligned feature of MaskCLIP (Zip, Eq. 2).
    """
    value = F.conv2d(x, pool.v_proj.weight[..., None, None], pool.v_proj.bias)
    return F.conv2d(value, pool.c_proj.weight[..., None, None], pool.c_proj.bias)


def _tokens(pool: AttentionPool2d, x: Tensor, rule: PositionRule) -> Tensor:
    """The pool's tokens (1 + h * w, B, C), their mean first, with positions added."""
    positions = resize_positions(pool.positional_embedding, (x.shape[-2], x.shape[-1]), rule)
    tokens = x.flatten(2).permute(2, 0, 1)
    return torch.cat([tokens.mean(0, keepdim=True), tokens]) + positions[:, None].to(x.dtype)


def _attended(pool: AttentionPool2d, query: Tensor, tokens: Tensor, q_proj: nn.Linear, k_proj: nn.Linear) -> Tensor:
    """The pool's attention of some queries (Q, B, C) over all tokens, by given query and key projections, (Q, B, D)."""
    attended: Tensor = F.multi_head_attention_forward(
        query=query,
        key=tokens,
        value=tokens,
        embed_dim_to_check=tokens.shape[-1],
        num_heads=pool.num_heads,
        in_proj_weight=None,
        in_proj_bias=torch.cat([q_proj.bias, k_proj.bias, pool.v_proj.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=pool.c_proj.weight,
        out_proj_bias=pool.c_proj.bias,
        training=pool.training,
        need_weights=False,
        use_separate_proj_weight=True,
        q_proj_weight=q_proj.weight,
        k_proj_weight=k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
    )[0]
    return attended


class ResNetTower:
    """Named outputs of open_clip's ModifiedResNet for normalized images (B, 3, H, W) of any size.

    ``stride`` is that of layer4 in px, ``native`` the side in px that the tower was trained at.  ``positions`` is the rule
    by which positions are resized; None takes each path's own, bilinear for ``surgery`` and bicubic elsewhere.
    """

    default_path: DensePath = "value"
    paths: tuple[DensePath, ...] = ("value", "surgery", "attention")
    stride = 32

    def __init__(self, visual: ModifiedResNet, positions: PositionRule | None = None) -> None:
        self.visual, self.positions = visual, positions
        self.native = int(visual.image_size)
        self.dimension = int(visual.attnpool.c_proj.out_features)

    def extract_conv4(self, x: Tensor, shifts: int = 1) -> Tensor:
        """The output of conv4_x, (B, C, S H / 16, S W / 16), finer by S = ``shifts`` moves a side than the tower's stride.

        Two or four moves are multiples of the strides of the first stages: what moved images have in common is computed once,
        and their copies part where a stage thins the cells.  The cells are those of ``shift_images`` and ``stitch_maps`` but
        at the border, as far as conv4_x sees (133 px in ResNet-50): zero padding lies up to 6 px further out.
        """
        v = self.visual
        x = x.to(v.conv1.weight.dtype, memory_format=torch.channels_last)
        if shifts not in _PHASES:
            return stitch_maps(v.layer3(v.layer2(v.layer1(v.stem(shift_images(x, CONV4_STRIDE, shifts))))), shifts)
        second, third = _PHASES[shifts]
        shared = v.layer1(v.stem(_widen(x, shifts)))
        cells = v.layer3(_copies(v.layer2(_copies(shared, second)), third))
        return stitch_maps(stitch_maps(cells, third), second)

    def extract_layer4(self, x: Tensor) -> Tensor:
        """The output of conv5_x, (B, C, H / 32, W / 32), which the attention pool reads."""
        features: Tensor = self.visual.layer4(self.extract_conv4(x))
        return features

    def encode_image(self, x: Tensor) -> Tensor:
        """The embedding of each image, (B, D), not normalized."""
        return pool_attention(self.visual.attnpool, self.extract_layer4(x), self.positions or "bicubic")

    def encode_dense(self, x: Tensor, path: DensePath) -> Tensor:
        """Text-aligned features of each cell, (B, D, H / 32, W / 32), not normalized.

        ``value``: value and output projections alone (MaskCLIP).  ``surgery``: every token attends to every other, the value
        projection standing in for those of query and key (CLIP Surgery's ResNet).  ``attention``: every token attends, as the
        mean token does in the pool.  Raises InputError for ``value+mlp``, which needs a ViT.
        """
        return self.encode_dense_and_class(x, path)[0]

    def encode_dense_and_class(self, x: Tensor, path: DensePath) -> tuple[Tensor, Tensor]:
        """The same, and the mean token's features of the same pass, (B, D), which here stands for the class token."""
        pool, cells = self.visual.attnpool, self.extract_layer4(x)
        if path == "value":
            values = project_values(pool, cells)
            return values, values.mean((2, 3))
        if path == "surgery":
            tokens = _tokens(pool, cells, self.positions or "bilinear")
            seen = _attended(pool, tokens, tokens, pool.v_proj, pool.v_proj)
            return _map(seen, cells), seen[0]
        if path == "attention":
            tokens = _tokens(pool, cells, self.positions or "bicubic")
            seen = _attended(pool, tokens, tokens, pool.q_proj, pool.k_proj)
            return _map(seen, cells), seen[0]
        raise InputError(f"a CLIP ResNet has the dense paths attention, surgery and value, got {path!r}; a ViT has value+mlp")

    def extract_values(self, x: Tensor) -> Tensor:
        """The pool's values through its output projection, (B, D, h, w)."""
        return project_values(self.visual.attnpool, self.extract_layer4(x))

    def align_values(self, cells: Tensor) -> Tensor:
        """Such values, or means of them, (D, h, w): themselves, which are in the space of texts."""
        return cells

    def encode_regions(self, x: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """One embedding a box, (N, D), not normalized: layer4 cut out by RoIAlign, through the attention pool.

        Boxes (N, 4) are in px of the image of ``size`` (H, W) that ``x`` (1, 3, ., .) shows.
        """
        layer4, pool = self.extract_layer4(x), self.visual.attnpool
        scale = torch.tensor([layer4.shape[-1] / size[1], layer4.shape[-2] / size[0]] * 2, device=layer4.device)
        cells = roi_align(layer4.float(), [boxes.float() * scale], self.native // self.stride, aligned=True)
        return pool_attention(pool, cells.to(layer4.dtype))

    def extract_patches(self, x: Tensor) -> Tensor:
        """Raise InputError: there are no patch tokens here."""
        raise InputError("a CLIP ResNet has no patch tokens; use a ViT such as ViT-B/16")

    def extract_keys(self, x: Tensor) -> Tensor:
        """Raise InputError: there are no transformer keys here."""
        raise InputError("a CLIP ResNet has no keys of a last block; use a ViT such as ViT-B/16")


def _map(tokens: Tensor, cells: Tensor) -> Tensor:
    """Tokens (1 + h * w, B, D) without the first, on the grid of ``cells``, (B, D, h, w)."""
    return tokens[1:].permute(1, 2, 0).reshape(len(cells), tokens.shape[-1], *cells.shape[-2:])


def _widen(x: Tensor, shifts: int) -> Tensor:
    """Images that hold all their moved copies: cut and repeated at the border as ``shift_images`` does."""
    reach = (CONV4_STRIDE - CONV4_STRIDE // shifts) // 2  # px that the first copy and the last are moved by
    return F.pad(x, (reach, reach, reach, reach), mode="replicate") if reach else x


def _copies(maps: Tensor, factor: int) -> Tensor:
    """Copies (factor ** 2 * B, C, h - factor + 1, w - factor + 1) of maps, each a cell further."""
    height, width = (n - factor + 1 for n in maps.shape[-2:])
    return torch.cat([maps[..., y : y + height, x : x + width] for y in range(factor) for x in range(factor)])
