"""The clue of Zip's released demo: features divided by their norm over tokens, channel by channel, not token by token.

D embedding, S class tokens, h w cells.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.structures import FeatureMap

__all__ = ["divide_by_channels"]


def divide_by_channels(cells: FeatureMap, tokens: Tensor) -> FeatureMap:
    """Divide each channel of ``cells`` (D, h, w) by its norm over all tokens, the class ``tokens`` (S, D) among them.

    The demo normalizes along the axis of tokens where that of channels was meant: loud channels are damped, and a token keeps
    its length.

    >>> cells = FeatureMap(torch.tensor([[[3.0, 0.0]], [[0.0, 2.0]]]), (8, 16))
    >>> divide_by_channels(cells, torch.tensor([[4.0, 0.0]])).values.flatten(1).tolist()
    [[0.6000000238418579, 0.0], [0.0, 1.0]]
    """
    every = torch.cat([tokens.to(cells.values).T, cells.values.flatten(1)], 1)
    units = F.normalize(every, dim=1)[:, len(tokens) :]
    return FeatureMap(units.view_as(cells.values), cells.size, cells.window)
