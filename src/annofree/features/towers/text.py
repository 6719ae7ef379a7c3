"""CLIP's text tower on no more positions than its texts have.

T texts, L positions, D embedding.  Attention is causal, so nothing after the end of a text reaches its feature: a padded tail
costs as much as words and changes nothing but rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["encode_text_tokens"]

_TOGETHER = 32  # texts of nearly one length in one call


def encode_text_tokens(model: Any, tokens: Tensor) -> Tensor:
    """Text features (T, D) of token ids (T, L), as ``model.encode_text`` of an open_clip model; not normalized.

    A tower that is not causal, or does not read its feature at the highest id, is asked as it is.
    """
    tower = getattr(model, "text", model)
    if not len(tokens) or not _reads_at_the_end(tower):
        whole: Tensor = model.encode_text(tokens)
        return whole
    ends = tokens.argmax(1)
    order = torch.argsort(ends, stable=True)
    parts = [_encode_short(tower, tokens[rows], ends[rows]) for rows in torch.split(order, _TOGETHER)]
    return torch.cat(parts)[torch.argsort(order)]


def _reads_at_the_end(tower: Any) -> bool:
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    return tower.attn_mask is not None and pool == "argmax" and getattr(tower, "cls_emb", None) is None


def _encode_short(tower: Any, tokens: Tensor, ends: Tensor) -> Tensor:
    length = int(ends.max()) + 1
    x: Tensor = tower.token_embedding(tokens[:, :length]) + tower.positional_embedding[:length]
    x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
    x = tower.ln_final(x[torch.arange(len(x), device=x.device), ends])
    projection = tower.text_projection
    if isinstance(projection, nn.Linear):
        x = projection(x)
    elif projection is not None:
        x = x @ projection
    return x
