"""What several images have in common: in each the cell that all of them have a likeness of (ReCo, Shin et al., NeurIPS 2022).

n images of P cells each, D embedding.  A cell is known by its likeness to its best match in each image, where cells of less
weight match less; the seed of an image is the cell that the images have most of, on average, and the mean of the seeds is the
reference of what they share.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError

__all__ = ["Blocks", "compute_reference", "find_seeds"]

Blocks = Literal["image", "released"]
"""Which cells are those of the j-th image, from 0, when a best match is looked for: its own, or, as in the released code, the
(j + 1) P cells from its first one on, which reach into the images behind it."""

_AT_ONCE = 2**25  # values in memory, 128 MiB


def find_seeds(features: Tensor, weights: Tensor, blocks: Blocks = "image") -> Tensor:
    """The seed cell (n) of each image, for ``features`` (n, D, P) of any length and ``weights`` (n, P) of cells as matches.

    An image is compared with itself, too.  Raises InputError for shapes that do not fit.

    >>> one, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    >>> features = torch.stack([torch.stack([one, other], 1), torch.stack([other, -one], 1)])
    >>> find_seeds(features, torch.ones(2, 2)).tolist()
    [1, 0]
    """
    if features.ndim != 3 or weights.shape != (features.shape[0], features.shape[2]):
        raise InputError(
            f"expected features (n, D, P) and weights (n, P), got {tuple(features.shape)} and {tuple(weights.shape)}"
        )
    count, _, cells = features.shape
    units = F.normalize(features, dim=1)
    columns = units.transpose(0, 1).flatten(1)
    step = max(1, _AT_ONCE // (count * cells))
    shared = [
        _find_best(rows.T @ columns * weights.flatten(), count, blocks).mean(1)
        for image in units
        for rows in image.split(step, dim=1)
    ]
    return torch.cat(shared).view(count, cells).argmax(1)


def _find_best(likeness: Tensor, count: int, blocks: Blocks) -> Tensor:
    """The best match (Q, n) of Q cells in each image, of their ``likeness`` (Q, n P) to all cells."""
    if blocks == "image":
        return likeness.view(len(likeness), count, -1).amax(2)
    cells = likeness.shape[1] // count
    return torch.stack([likeness[:, j * cells : j * cells + (j + 1) * cells].amax(1) for j in range(count)], 1)


def compute_reference(features: Tensor, weights: Tensor, blocks: Blocks = "image") -> Tensor:
    """The unit feature (D) of what images share: the mean of their seeds' features, which keep their lengths until then."""
    seeds = find_seeds(features, weights, blocks)
    return F.normalize(features[torch.arange(len(features), device=features.device), :, seeds].mean(0), dim=0)
