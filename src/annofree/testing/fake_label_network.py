"""A fake of a NamedMask network: it knows the paper world's names by their colors, to the pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.structures import Image
from annofree.testing.paper_world import NAMES, classify_pixels

__all__ = ["FakeLabelNetwork"]

_SURE = 5.0  # the logit of what is there


class FakeLabelNetwork:
    """A trained network that tells the paper world's names from paper.

    >>> import numpy as np
    >>> FakeLabelNetwork().predict_logits([Image(np.full((8, 20, 3), (200, 30, 30), np.uint8))])[0].argmax(0).unique().tolist()
    [1]
    """

    names = NAMES
    side = 0

    @property
    def provenance(self) -> dict[str, Any]:
        """Name, license and supervision tier: there are no weights."""
        return {"name": "fake-label-network", "licence": "Apache-2.0", "tier": "S0"}

    def predict_logits(self, images: Sequence[Image], side: int = 0) -> list[Tensor]:
        """Logits (1 + K, H, W) of the background and the names, per image."""
        kinds = [torch.from_numpy((classify_pixels(image.pixels) + 1) % (len(NAMES) + 1)) for image in images]
        return [_SURE * F.one_hot(kind, len(NAMES) + 1).permute(2, 0, 1).float() for kind in kinds]
