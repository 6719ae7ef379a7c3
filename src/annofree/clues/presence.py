"""How likely a class is to be in a picture, set against how likely it is made out to be in a whole folder.

K classes.  A CLIP that likes a name too well says so of every picture; without labels, that is read off the folder.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from annofree.errors import InputError

__all__ = ["FEWEST", "folder_levels", "levelled"]

FEWEST = 20
"""Pictures below which a mean says little: on the emoji scenes 10 are worse than none, 20 are better."""

_LEAST = 1e-6


def folder_levels(presences: Iterable[Tensor]) -> Tensor:
    """Return how far the mean logit of each class lies above that of all classes, (K), from presences (K) in 0 .. 1 a picture.

    This takes a class that is in most of the pictures for one that is liked too well, so it is for many names of which each
    is in few pictures.  Raises InputError for fewer than 20 pictures.

    >>> levels = folder_levels([torch.tensor([0.1, 0.5])] * 20)
    >>> levelled(torch.tensor([0.1, 0.5]), levels).round(decimals=3).tolist()
    [0.25, 0.25]
    """
    total, count = torch.zeros(0), 0
    for presence in presences:
        logits = _logits(presence)
        total, count = (total + logits if count else logits), count + 1
    if count < FEWEST:
        raise InputError(f"expected {FEWEST} pictures or more to tell how likely classes are in a folder, got {count}")
    mean = total / count
    return mean - mean.mean()


def levelled(presence: Tensor, levels: Tensor) -> Tensor:
    """Take the folder's levels (K) off a picture's presences (K)."""
    return torch.sigmoid(_logits(presence) - levels.to(presence))


def _logits(presence: Tensor) -> Tensor:
    return torch.logit(presence, _LEAST)
