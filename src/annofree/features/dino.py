"""DINO, DINOv2 and DINOv3 through timm, as patch features behind the SelfSupervised protocol.

B images, D embedding, N tokens of which the first are prefix (class and register tokens), h w patches.  Blocks before the
last one run as timm has them, with fused attention; of the last one only the requested outputs are computed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers.attention import Attention
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from timm.models.eva import Eva, EvaAttention, EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from annofree.errors import InputError, MissingError, build_unknown_error
from annofree.features.preprocessing import map_by_size, preprocess_image
from annofree.features.towers.positions import PositionRule, resize_positions
from annofree.hub.cards import PICKLES, Card
from annofree.io.read_json import read_model_config
from annofree.io.tensors import refuse_nan
from annofree.ops.grids import fit_size
from annofree.structures import FeatureMap, Image

__all__ = ["Dino", "DinoPositions"]

DinoPositions = PositionRule | Literal["bicubic-antialias"]
"""How position embeddings are brought to another grid: the rules of ``positions``, and DINOv2's with registers (as timm's)."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as in all releases
_MODELS: dict[type[nn.Module], tuple[type[nn.Module], type[nn.Module]]] = {
    VisionTransformer: (Block, Attention),
    Eva: (EvaBlock, EvaAttention),
}


class Dino:
    """A vision transformer trained without labels, from a model folder in timm's hub layout; in eval mode.

    ``config.json`` names the ``architecture`` and may give ``model_args``; ``model.safetensors`` must match it exactly
    except for a classifier ``head``, which is dropped.

    ``side`` resizes images bicubically to that short side, in whole patches; None, the original rule of LOST, TokenCut and
    FOUND, keeps their size and pads zeros after normalizing, at the bottom and the right.  ``positions`` is by default the
    release's rule: ``bicubic+0.1`` (DINO, DINOv2), or ``bicubic-antialias`` with register tokens.  A card's ``use`` may set
    both.  Raises MissingError without the files, InputError for files or an architecture that cannot be read this way.
    """

    def __init__(
        self,
        folder: Path,
        device: str = "cpu",
        *,
        card: Card | None = None,
        dtype: torch.dtype = torch.float32,
        side: int | None = None,
        positions: DinoPositions | None = None,
    ) -> None:
        self.card = Card.read(folder) if card is None else card
        self.device, self.dtype = torch.device(device), dtype
        model, config = _built(folder)
        self._model: Any = _filled(model, folder).to(device=self.device, dtype=dtype)
        mean, std = config.get("mean", _MEAN), config.get("std", _STD)
        self._mean, self._std = (torch.tensor(v, dtype=torch.float32, device=self.device) for v in (mean, std))
        self.side: int | None = side or self.card.use.get("side")
        own: DinoPositions = "bicubic-antialias" if self._model.reg_token is not None else "bicubic+0.1"
        self.positions: DinoPositions = positions or self.card.use.get("positions", own)
        _refuse_unknown(self.positions)

    def with_side(self, side: int) -> Dino:
        """Return this model with images resized to a short side of ``side`` px, in whole patches."""
        twin = copy.copy(self)
        twin.side = side
        return twin

    @property
    def heads(self) -> int:
        """Attention heads of the last block."""
        return int(self._model.blocks[-1].attn.num_heads)

    @property
    def patch(self) -> int:
        """Side of a patch in px."""
        return int(self._model.patch_embed.patch_size[0])

    @property
    def dimension(self) -> int:
        """D, the length of keys and tokens."""
        return int(self._model.embed_dim)

    @property
    def provenance(self) -> dict[str, Any]:
        """Name, hashes, license and supervision tier of the weights, and how images and positions are resized."""
        return self.card.to_provenance() | {"side": self.side, "positions": self.positions}

    def extract_keys(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Keys of the last block, heads concatenated, unnormalized and before any rotation, (D, h, w) per image."""
        return [found[0] for found in self._read(images, lambda x, _: [self._keys(x)])]

    def extract_attention(self, images: Sequence[Image]) -> list[FeatureMap]:
        """How much the class token attends to each patch in the last block, (heads, h, w) per image.

        The softmax runs over all tokens, so that a head's map sums to what the prefix tokens leave.
        """
        return [found[0] for found in self._read(images, lambda x, rope: [self._attention(x, rope)])]

    def extract_keys_and_attention(self, images: Sequence[Image]) -> list[tuple[FeatureMap, FeatureMap]]:
        """Keys and attention from one forward pass."""
        both = self._read(images, lambda x, rope: [self._keys(x), self._attention(x, rope)])
        return [(keys, attention) for keys, attention in both]

    def extract_tokens(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Patch tokens after the final norm, (D, h, w) per image."""
        return [found[0] for found in self._read(images, lambda x, rope: [self._tokens(x, rope)])]

    @torch.inference_mode()
    def _read(self, images: Sequence[Image], look: Callable[[Tensor, Tensor | None], list[Tensor]]) -> list[list[FeatureMap]]:
        """What ``look`` makes (B, C, h * w) of the tokens that enter the last block, as maps, each list of one image."""

        def see(same: list[Image], size: tuple[int, int]) -> list[list[FeatureMap]]:
            grid = size[0] // self.patch, size[1] // self.patch
            x, rope = self._entering(torch.cat([self._pixels(i, size) for i in same]))
            maps = [m.float().reshape(*m.shape[:2], *grid) for m in look(x, rope)]
            return [[FeatureMap(m[k], i.size, self._window(i, size)) for m in maps] for k, i in enumerate(same)]

        return map_by_size(images, self._size, see)

    def _size(self, image: Image) -> tuple[int, int]:
        if self.side is not None:
            return fit_size(image.size, self.side, self.patch)
        height, width = (-(-n // self.patch) * self.patch for n in image.size)
        return height, width

    def _window(self, image: Image, size: tuple[int, int]) -> tuple[int, int] | None:
        return None if self.side is not None or size == image.size else size

    def _pixels(self, image: Image, size: tuple[int, int]) -> Tensor:
        x = preprocess_image(image, image.size if self.side is None else size, self._mean, self._std)
        return F.pad(x, (0, size[1] - x.shape[3], 0, size[0] - x.shape[2])).to(self.dtype)

    def _entering(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, N, D) that enter the last block, for normalized pixels (B, 3, H, W), and the rotations of patches."""
        m = self._model
        cells = m.patch_embed.proj(x)
        grid = cells.shape[-2], cells.shape[-1]
        x = self._placed(m.patch_embed.norm(cells.flatten(2).transpose(1, 2)), grid)
        rope = getattr(m, "rope", None)
        rotations = None if rope is None else rope.get_embed(shape=grid)
        x = m.norm_pre(x)
        for block in m.blocks[:-1]:
            x = self._through(block, x, rotations)
        return x, rotations

    def _placed(self, cells: Tensor, grid: tuple[int, int]) -> Tensor:
        """Add positions to patches (B, h * w, D) and put the prefix tokens before them."""
        m = self._model
        prefix = [t.expand(len(cells), -1, -1) for t in (m.cls_token, m.reg_token) if t is not None]
        if m.pos_embed is None:
            return torch.cat([*prefix, cells], 1)
        count = 0 if m.no_embed_class else m.num_prefix_tokens
        first, native = m.pos_embed[0, :count], m.patch_embed.grid_size
        positions = _resized(m.pos_embed[0, count:].float(), native, grid, self.positions).to(cells)
        if m.no_embed_class:
            return torch.cat([*prefix, cells + positions], 1)
        return torch.cat([*prefix, cells], 1) + torch.cat([first, positions])

    def _through(self, block: Any, x: Tensor, rope: Tensor | None) -> Tensor:
        through: Tensor = block(x) if rope is None else block(x, rope=rope)
        return through

    def _keys(self, x: Tensor) -> Tensor:
        return self._projected(self._normed(x)[:, self._model.num_prefix_tokens :], 1).transpose(1, 2)

    def _attention(self, x: Tensor, rope: Tensor | None) -> Tensor:
        attn, prefix, x = self._model.blocks[-1].attn, self._model.num_prefix_tokens, self._normed(x)
        q, k = self._projected(x[:, :1], 0), self._projected(x, 1)
        q, k = (t.reshape(*t.shape[:2], self.heads, -1).transpose(1, 2) for t in (q, k))
        q, k = attn.q_norm(q), attn.k_norm(k)
        if rope is not None:  # prefix tokens, the class token's query among them, have no place
            rotated = apply_rot_embed_cat(k[:, :, prefix:], rope, half=attn.rotate_half)
            k = torch.cat([k[:, :, :prefix], rotated], 2).type_as(q)
        row: Tensor = (q @ k.transpose(2, 3)).float() * attn.scale
        return row.softmax(3)[:, :, 0, prefix:]

    def _tokens(self, x: Tensor, rope: Tensor | None) -> Tensor:
        x = self._model.norm(self._through(self._model.blocks[-1], x, rope))
        return x[:, self._model.num_prefix_tokens :].transpose(1, 2)

    def _normed(self, x: Tensor) -> Tensor:
        normed: Tensor = self._model.blocks[-1].norm1(x)
        return normed

    def _projected(self, x: Tensor, part: int) -> Tensor:
        """Queries (``part`` 0) or keys (1) of the last block, (B, N, heads * d), and nothing else of its projection."""
        attn = self._model.blocks[-1].attn
        if attn.qkv is None:
            projected: Tensor = (attn.q_proj, attn.k_proj)[part](x)
            return projected
        biases = (getattr(attn, "q_bias", None), getattr(attn, "k_bias", None))
        bias = biases[part] if attn.qkv.bias is None else attn.qkv.bias.chunk(3)[part]
        return F.linear(x, attn.qkv.weight.chunk(3)[part], bias)


def _resized(cells: Tensor, native: tuple[int, int], grid: tuple[int, int], rule: DinoPositions) -> Tensor:
    """Positions of patches (g h * g w, D) on another grid, (h * w, D)."""
    if rule != "bicubic-antialias":
        return resize_positions(torch.cat([cells[:1], cells]), grid, rule, native)[1:]  # the first row is only kept
    if grid == native:
        return cells
    maps = cells.T.reshape(1, -1, *native)
    return F.interpolate(maps, size=grid, mode="bicubic", align_corners=False, antialias=True).flatten(2)[0].T


def _refuse_unknown(rule: str) -> None:
    known = [name for part in get_args(DinoPositions) for name in get_args(part)]
    if rule not in known:
        raise build_unknown_error("position rule", rule, known)


def _built(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The empty model that config.json means, and what the file says of images."""
    path = folder / "config.json"
    if not path.is_file():
        raise MissingError(f"expected a model in timm's layout in {folder}; there is no config.json")
    config = read_model_config(path)
    name = str(config.get("architecture"))
    if not timm.is_model(name):
        raise InputError(f"expected the name of a timm model as architecture in {path}, got {name!r}")
    try:
        model = timm.create_model(name, pretrained=False, **(config.get("model_args") or {}) | {"num_classes": 0})
    except (RuntimeError, TypeError, ValueError, AssertionError) as problem:
        raise InputError(f"expected model_args of {name} in {path}, but it cannot be built: {problem}") from problem
    _refuse_other(model, name)
    return model, config.get("pretrained_cfg", config)


def _refuse_other(model: Any, name: str) -> None:
    """Refuse models that are not plain vision transformers: the parts of their last block cannot be read."""
    block, attention = _MODELS.get(type(model), (None, None))
    plain = (
        block is not None
        and all(type(b) is block and type(b.attn) is attention for b in model.blocks)
        and isinstance(model.patch_embed, PatchEmbed)
        and model.cls_token is not None
        and not getattr(model, "rope_mixed", False)
    )
    if not plain:
        raise InputError(
            f"expected a vision transformer with a class token, such as DINO, DINOv2 or DINOv3, got {name}, "
            f"a {type(model).__name__} that is built otherwise"
        )


def _filled(model: Any, folder: Path) -> Any:
    """Load model.safetensors strictly, ignoring a classifier head."""
    path = folder / "model.safetensors"
    if not path.is_file():
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
        if pickles:
            raise InputError(f"expected {path}, got {pickles[0]}; a pickle can run any code and is not read")
        raise MissingError(f"expected {path}; there is none")
    try:
        state = {k: v for k, v in load_file(path).items() if not k.startswith("head.")}
        refuse_nan(state, path)
        found = model.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    except (OSError, RuntimeError, SafetensorError) as problem:
        raise InputError(f"expected the weights of config.json's model in {path}, got others: {problem}") from problem
    for what, names in (("missing", found.missing_keys), ("unexpected", found.unexpected_keys)):
        if names:
            raise InputError(f"expected {path} to fit its config.json, but {len(names)} are {what}, such as {names[0]}")
    return model.eval().requires_grad_(False)
