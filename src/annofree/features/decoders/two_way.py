"""The two-way decoder of SAM, SAM 2 and EdgeTAM, with what belongs to the image computed once for all of its prompts.

    cells of the image ---- keys, values, queries of the first layer, high-resolution features: once an image
    tokens of a prompt ---- attend to themselves and to the cells; the cells attend to them; upscaled, cut by the mask tokens

The weights are transformers' own modules, and the answers those of its forward pass up to rounding:

- before the first layer changes them, the cells are the same for all prompts, and so are their projections;
- where cells are a prompt's own, no cell is projected: (W x) . q = x . (W' q), and the few tokens are projected back instead;
- softmax adds up to one, so a bias of values is added after it, and a bias of keys changes nothing;
- a transposed convolution of stride 2 and kernel 2 is a matrix product a cell, whose rows stay in the order of the cells.

P prompts, T tokens a prompt, N cells, C channels, h heads of d, M masks, s the side of the logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.ops.linear import apply_linear

__all__ = ["ImageSide", "TwoWayDecoder"]


@dataclass(frozen=True, eq=False)
class ImageSide:
    """What an image gives to each of its prompts.

    ``cells`` and ``placed``, with their positions, (N, C); projections of the first layer (h, N, d); what is added to the
    upscaled cells, (N, 4, C / 4) and (N, 4, 4, C / 8), or to be broadcast to it; ``grid`` (rows, columns).
    """

    cells: Tensor
    placed: Tensor
    keys: Tensor
    values: Tensor
    queries: Tensor
    finer: Tensor
    finest: Tensor
    grid: tuple[int, int]


class TwoWayDecoder:
    """Decodes prompts of one image with the modules of a transformers SamModel, Sam2Model or EdgeTamModel, in eval mode."""

    def __init__(self, model: Any) -> None:
        self._model, self._decoder = model, model.mask_decoder
        first = [self._decoder.obj_score_token] if hasattr(self._decoder, "obj_score_token") else []
        given = [*first, self._decoder.iou_token, self._decoder.mask_tokens]
        self._is_dynamic = bool(getattr(self._decoder, "dynamic_multimask_via_stability", False))
        self._first, self._own = len(first), torch.cat([token.weight for token in given])
        self._positions = model.get_image_wide_positional_embeddings().to(self._own)[0].flatten(1).T
        self._up = [_to_matrix(conv.weight) for conv in (self._decoder.upscale_conv1, self._decoder.upscale_conv2)]

    def prepare_image(self, cells: Tensor, finer: Tensor | None = None, finest: Tensor | None = None) -> ImageSide:
        """Compute what all prompts share, of an embedding (1, C, rows, columns) and high-resolution features, if any."""
        grid = int(cells.shape[2]), int(cells.shape[3])
        flat = (cells + self._model.prompt_encoder.no_mask_embed.weight[..., None, None])[0].flatten(1).T.contiguous()
        placed, layer = flat + self._positions.to(flat), self._decoder.transformer.layers[0]
        to_cells, to_tokens = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
        keys = _split(to_cells.k_proj(placed), to_cells)
        values, queries = _split(to_cells.v_proj(flat), to_cells), _split(to_tokens.q_proj(placed), to_tokens)
        small, large = (conv.bias for conv in (self._decoder.upscale_conv1, self._decoder.upscale_conv2))
        small = small if finer is None else small + _to_cells(finer, grid, 1)
        large = large if finest is None else large + _to_cells(finest, grid, 2)
        return ImageSide(flat, placed, keys, values, queries, small, large, grid)

    def decode_prompts(self, side: ImageSide, prompts: dict[str, Tensor], multimask: bool) -> tuple[Tensor, Tensor]:
        """Logits (P, M, s, s) and qualities (P, M) of prompts (1, P, ...) as transformers takes them."""
        tokens, cells, quality = self._judge(side, prompts)
        return self._choose(self._upscale(side, cells), tokens, quality, multimask)

    def decode_above(self, side: ImageSide, prompts: dict[str, Tensor], multimask: bool, least: float) -> tuple[Tensor, Tensor]:
        """The same of those prompts only that have a mask of a quality above ``least``; no cell of others is upscaled."""
        tokens, cells, quality = self._judge(side, prompts)
        if multimask or not self._is_dynamic:  # else the quality is known only after the mask
            rows = (quality[:, 1:] if multimask else quality[:, :1]).gt(least).any(1).nonzero()[:, 0]
            if not len(rows):
                wanted, (high, wide) = 3 if multimask else 1, side.grid
                return cells.new_zeros(0, wanted, 4 * high, 4 * wide), quality.new_zeros(0, wanted)
            if len(rows) < len(quality):
                tokens, cells, quality = tokens[rows], cells[rows], quality[rows]
        return self._choose(self._upscale(side, cells), tokens, quality, multimask)

    def _judge(self, side: ImageSide, prompts: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens and cells after the transformer, and the qualities of all masks (P, M)."""
        given = {f"input_{name}": prompts.get(f"input_{name}") for name in ("points", "labels", "boxes")}
        sparse, _ = self._model.prompt_encoder(**given, input_masks=None)
        tokens = torch.cat([self._own.expand(sparse.shape[1], -1, -1), sparse[0].to(self._own)], dim=1)
        found, cells = self._attend(side, tokens)
        return found[:, self._first + 1 :], cells, self._decoder.iou_prediction_head(found[:, self._first])

    def _attend(self, side: ImageSide, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (P, T, C) and cells (P, N, C) after the transformer."""
        transformer, found, cells = self._decoder.transformer, tokens, side.cells
        for layer in transformer.layers:
            found = _attend_to_themselves(layer, found, tokens)
            shared, placed = cells.ndim == 2, side.placed if cells.ndim == 2 else cells + self._positions.to(cells)
            attention = layer.cross_attn_token_to_image
            query = attention.q_proj(found + tokens)
            seen = _look_once(attention, query, side) if shared else _look(attention, query, placed, cells)
            found = layer.layer_norm2(found + seen)
            found = layer.layer_norm3(found + layer.mlp(found))
            back = layer.cross_attn_image_to_token
            weights = _weigh_tokens(back, found + tokens, side.queries if shared else None, placed)
            cells = layer.layer_norm4(torch.baddbmm(cells.expand(len(tokens), -1, -1), weights.mT, _give(back, found)))
        attention = transformer.final_attn_token_to_image
        seen = _look(attention, attention.q_proj(found + tokens), cells + self._positions.to(cells), cells)
        return transformer.layer_norm_final_attn(found + seen), cells

    def _upscale(self, side: ImageSide, cells: Tensor) -> Tensor:
        """Features (P, N, 4, 4, C / 8) of the 16 parts of each cell (P, N, C)."""
        norm, activation = self._decoder.upscale_layer_norm, self._decoder.activation
        x = torch.unflatten(apply_linear(cells, self._up[0]), -1, (4, -1)).add_(side.finer)
        x = activation(F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps))
        x = torch.unflatten(apply_linear(x, self._up[1]), -1, (4, -1)).add_(side.finest)
        return torch.unflatten(activation(x), 1, side.grid)

    def _choose(self, parts: Tensor, tokens: Tensor, quality: Tensor, multimask: bool) -> tuple[Tensor, Tensor]:
        """Masks and qualities: three, or one, which SAM 2 takes from among the three where it is not stable."""
        dynamic = not multimask and self._is_dynamic
        wanted = range(self._decoder.num_mask_tokens)[1 if multimask else 0 : None if multimask or dynamic else 1]
        heads = self._decoder.output_hypernetworks_mlps
        hyper = torch.stack([heads[i](tokens[:, i]) for i in wanted], dim=2)
        logits = _to_maps(parts.flatten(1, 4) @ hyper, parts.shape)
        if dynamic:
            one, best = self._decoder._dynamic_multimask_via_stability(logits[None], quality[None])
            return one[0], best[0]
        return logits, quality[:, wanted.start : wanted.stop]


# attention


def _split(x: Tensor, attention: Any) -> Tensor:
    """Heads of (..., L, h d) as (..., h, L, d)."""
    return torch.unflatten(x, -1, (attention.num_attention_heads, -1)).transpose(-3, -2)


def _attend_to_themselves(layer: Any, found: Tensor, tokens: Tensor) -> Tensor:
    if layer.skip_first_layer_pe:
        new = layer.self_attn(query=found[None], key=found[None], value=found[None])[0][0]
    else:
        asking = (found + tokens)[None]
        new = found + layer.self_attn(query=asking, key=asking, value=found[None])[0][0]
    normed: Tensor = layer.layer_norm1(new)
    return normed


def _look_once(attention: Any, query: Tensor, side: ImageSide) -> Tensor:
    """What tokens (P, T, h d) see in the cells that all prompts share: one list of P T tokens."""
    seen = F.scaled_dot_product_attention(
        _split(query.flatten(0, 1), attention)[None], side.keys[None], side.values[None], scale=attention.scaling
    )
    return torch.unflatten(_project_out(attention, seen[0].transpose(0, 1).flatten(1)), 0, query.shape[:2])


def _look(attention: Any, query: Tensor, placed: Tensor, cells: Tensor) -> Tensor:
    """What tokens (P, T, h d) see in a prompt's own cells (P, N, C), of which none is projected."""
    count = attention.num_attention_heads
    keys, values = (torch.unflatten(p.weight, 0, (count, -1)) for p in (attention.k_proj, attention.v_proj))
    asking = (_split(query, attention) * attention.scaling) @ keys  # (P, h, T, C)
    weights = (asking.flatten(1, 2) @ placed.mT).softmax(-1)
    seen = torch.unflatten(weights @ cells, 1, (count, -1)) @ values.mT
    return _project_out(attention, seen.transpose(1, 2).flatten(2) + attention.v_proj.bias)


def _weigh_tokens(attention: Any, tokens: Tensor, queries: Tensor | None, cells: Tensor) -> Tensor:
    """How much cells attend to tokens (P, T, C), (P, h T, N): by queries (h, N, d) of shared cells, or a prompt's own cells."""
    keys = _split(attention.k_proj(tokens), attention) * attention.scaling  # (P, h, T, d)
    if queries is not None:
        shared = keys.transpose(0, 1).flatten(1, 2) @ queries.mT
        return torch.unflatten(shared, 1, (len(tokens), -1)).softmax(2).transpose(0, 1).flatten(1, 2)
    weight, bias = (torch.unflatten(w, 0, (keys.shape[1], -1)) for w in (attention.q_proj.weight, attention.q_proj.bias))
    own = torch.baddbmm((keys @ bias[..., None]).flatten(1, 2), (keys @ weight).flatten(1, 2), cells.mT)
    return torch.unflatten(own, 1, keys.shape[1:3]).softmax(2).flatten(1, 2)


def _give(attention: Any, tokens: Tensor) -> Tensor:
    """What cells get from each head of each token (P, T, C), (P, h T, C), a share of the last bias each."""
    out = _out(attention)
    values = _split(attention.v_proj(tokens), attention)
    back = torch.unflatten(out.weight, 1, (values.shape[1], -1)).permute(1, 2, 0)
    given: Tensor = values @ back + out.bias / values.shape[1]
    return given.flatten(1, 2)


def _out(attention: Any) -> Any:
    return attention.out_proj if hasattr(attention, "out_proj") else attention.o_proj


def _project_out(attention: Any, seen: Tensor) -> Tensor:
    found: Tensor = _out(attention)(seen)
    return found


# cells and maps


def _to_matrix(weight: Tensor) -> Tensor:
    """A transposed convolution (C, D, 2, 2) of stride 2 as a linear layer of cells, (4 D, C)."""
    return weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous()


def _to_cells(features: Tensor, grid: tuple[int, int], levels: int) -> Tensor:
    """A map (1, D, rows 2^l, columns 2^l) in the order in which ``levels`` upscalings leave parts of cells, (N, 4, ..., D)."""
    rows, columns = grid
    x = features[0].reshape(-1, rows, *[2] * levels, columns, *[2] * levels)
    order = [1, 2 + levels, *(k for level in range(levels) for k in (2 + level, 3 + levels + level)), 0]
    return x.permute(order).reshape(rows * columns, *[4] * levels, -1)


def _to_maps(values: Tensor, shape: torch.Size) -> Tensor:
    """Values (P, N 16, M) of parts (P, rows, columns, 4, 4, ...) as maps (P, M, rows 4, columns 4)."""
    prompts, rows, columns = shape[:3]
    x = values.view(prompts, rows, columns, 2, 2, 2, 2, -1)
    return x.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(prompts, -1, rows * 4, columns * 4)
