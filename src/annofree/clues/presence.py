"""Whether a class is in an image at all, without labels: set against other names, or against a whole folder.

K classes, R names.  A CLIP that likes a name too well says so of every image; that is read off the folder.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from annofree.errors import InputError

__all__ = ["FEWEST", "measure_folder_levels", "standardize_evidence", "subtract_levels"]

FEWEST = 20
"""Images, or names, below which a mean says little: on the emoji scenes 10 images are worse than none, 20 are better."""

_LEAST = 1e-6


def measure_folder_levels(presences: Iterable[Tensor]) -> Tensor:
    """Return how far the mean logit of each class lies above that of all classes, (K), from presences (K) in 0 .. 1 per image.

    This takes a class that is in most of the images for one that is liked too well, so it is for many names of which each
    is in few images.  Raises InputError for fewer than 20 images.

    >>> levels = measure_folder_levels([torch.tensor([0.1, 0.5])] * 20)
    >>> subtract_levels(torch.tensor([0.1, 0.5]), levels).round(decimals=3).tolist()
    [0.25, 0.25]
    """
    total, count = torch.zeros(0), 0
    for presence in presences:
        logits = _logits(presence)
        total, count = (total + logits if count else logits), count + 1
    if count < FEWEST:
        raise InputError(f"expected {FEWEST} images or more to tell how likely classes are in a folder, got {count}")
    mean = total / count
    return mean - mean.mean()


def subtract_levels(presence: Tensor, levels: Tensor) -> Tensor:
    """Take the folder's levels (K) off an image's presences (K)."""
    return torch.sigmoid(_logits(presence) - levels.to(presence))


def _logits(presence: Tensor) -> Tensor:
    return torch.logit(presence, _LEAST)


def standardize_evidence(evidence: Tensor) -> Tensor:
    """How far each of R names stands out among them all in an image, (R), in standard deviations.

    ``evidence`` (R, 2) is what speaks for each: the similarity of the whole image, and of its best cells; the larger of the
    two deviations counts, for a small thing shows in the cells alone.  Names that an image has nothing of lie around 0,
    for any CLIP, so one threshold serves all.  With fewer than 20 names the score is infinite: there is too little to
    compare.

    >>> evidence = torch.zeros(100, 2)
    >>> evidence[7, 1] = 0.3
    >>> [round(float(value), 1) for value in standardize_evidence(evidence)[[0, 7]]]
    [0.0, 9.9]
    """
    if len(evidence) < FEWEST:
        return torch.full_like(evidence[:, 0], float("inf"))
    deviation = evidence.std(0).clamp(min=_LEAST)
    return ((evidence - evidence.mean(0)) / deviation).max(1).values
