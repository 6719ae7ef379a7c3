"""An embedder of mean colors, and what an index holds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from annofree.structures import Image

__all__ = ["Colors", "content"]


@dataclass
class Colors:
    """A CLIP that sees the mean colour; an image 13 px wide makes numbers that are not finite."""

    name: str = "colours"
    batches: list[int] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    @property
    def dimension(self) -> int:
        return 3

    @property
    def provenance(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": {"weights": self.name}}

    def encode_image(self, images: Sequence[Image]) -> Tensor:
        self.batches.append(len(images))
        self.seen += [image.id for image in images]
        means = torch.tensor(np.stack([image.pixels.mean((0, 1)) for image in images])) + 1
        means[[image.size[1] == 13 for image in images]] = torch.nan
        return torch.nn.functional.normalize(means, dim=1)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
