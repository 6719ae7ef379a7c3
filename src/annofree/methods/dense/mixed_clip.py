"""What methods share that exchange CLIP's last attention for another: its values, mixed by what a DINO finds alike.

    image -> (windows) -> CLIP's last values, brought to DINO's grid -+-> mixed by likeness -> meet the names, as in the family
                       -> DINO -> how alike its cells are ------------+

C channels of the values, D embedding, h w cells, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from annofree.clues.background import Asked
from annofree.clues.windows import Box, Windows, cut_image, cut_windows, merge_windows, resize_to_image
from annofree.errors import InputError
from annofree.methods.dense.dense_clip import DenseClip, DenseEncoding, DenseSettings, compute_similarity
from annofree.ops.grids import resize_maps
from annofree.ops.proxy_attention import average_by_likeness
from annofree.protocols import DensePath, MixableClip, SelfSupervised, Sized, Tokened, VisionLanguage
from annofree.structures import FeatureMap, Image

__all__ = ["MixedClip", "MixedSettings", "count_pixels", "group_cells"]


@dataclass(frozen=True)
class MixedSettings(DenseSettings):
    """What may be chosen, beside what the family shares; raises InputError for a scale under 0."""

    # which of DINO's features tell likeness: the last block's ``keys``, or the last ``tokens`` after the norm
    features: Literal["keys", "tokens"] = "tokens"
    # of the mean cosine of all pairs of cells, how much is taken from each cosine; what is negative then is cut
    shift: float = 1.2
    # what the rest is multiplied by before the softmax
    scale: float = 3.0
    # px of the short side that DINO sees of an image or window; None for what its card says
    dino_side: int | None = None
    # squares that the image is looked at in, one by one, by both networks
    windows: Windows = field(default_factory=Windows)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale < 0 or (self.dino_side is not None and self.dino_side < 1):
            raise InputError(f"expected a scale from 0 and a dino_side of 1 px or more, got {self.scale} and {self.dino_side}")


S = TypeVar("S", bound=MixedSettings)


class MixedClip(DenseClip[S]):
    """The flow; a method may restrict which cells see each other."""

    def __init__(self, clip: VisionLanguage, dino: SelfSupervised | None, settings: S | str = "default") -> None:
        super().__init__(clip, settings)
        if not isinstance(clip, MixableClip):
            raise InputError(f"{self.name} needs a CLIP that gives the values of its last attention; this one does not")
        self._values: MixableClip = clip
        self.dino = _resize_dino(dino, self.settings) if dino else None

    @property
    def path(self) -> DensePath:
        """The values of the last attention, which are mixed here."""
        return "value"

    @property
    def provenance(self) -> dict[str, Any]:
        """Method, path, settings, and the models with their hashes and tiers."""
        told = super().provenance
        return told | {"models": [*told["models"], *([self.dino.provenance] if self.dino else [])]}

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """Two of these on the same models can share an encoding when their keys are equal."""
        s = self.settings
        return (*super().encoding_key, s.features, s.shift, s.scale, s.dino_side, s.windows, self.dino is not None)

    def compute_scores(self, encoding: DenseEncoding, asked: Asked) -> Tensor:
        """Cosines (R, h, w)."""
        return compute_similarity(encoding.tokens, self.clip.encode_text(asked.rows))

    def _mixed(self, images: Sequence[Image], numbers: Sequence[Tensor | None]) -> list[FeatureMap]:
        """Mixed features (D, h, w) of each image; cells see those of their own number (H, W) alone, where there are numbers."""
        boxes = [cut_windows(image.size, self.settings.windows) for image in images]
        crops = [cut_image(image, box) for image, own in zip(images, boxes, strict=True) for box in own]
        values, told = self._values.extract_values(crops), self._told(crops)
        parts = iter(zip(values, told, strict=True))
        found = []
        for image, own, number in zip(images, boxes, numbers, strict=True):
            maps = [self._mix(*next(parts), None if number is None else _cut_numbers(number, box)) for box in own]
            found.append(FeatureMap(merge_windows(maps, own, image.size), image.size))
        return found

    def _told(self, crops: Sequence[Image]) -> list[FeatureMap | None]:
        """What tells likeness, (D, h, w) over the whole of each; nothing without a DINO."""
        if self.dino is None:
            return [None] * len(crops)
        if self.settings.features == "keys":
            return [resize_to_image(m) for m in self.dino.extract_keys(crops)]
        if not isinstance(self.dino, Tokened):
            raise InputError(
                "features 'tokens' need a DINO that gives its last tokens; this one gives keys: set them to 'keys'"
            )
        return [resize_to_image(m) for m in self.dino.extract_tokens(crops)]

    @torch.inference_mode()
    def _mix(self, values: FeatureMap, told: FeatureMap | None, number: Tensor | None) -> FeatureMap:
        """The values (C, h, w) of a crop on the grid of what tells likeness, mixed, as unit features that meet text."""
        alike = values.values.new_ones(1, *values.values.shape[1:]) if told is None else told.values.to(values.values)
        grid = alike.shape[1], alike.shape[2]
        cells = resize_maps(resize_to_image(values).values, grid)
        groups = None if number is None else group_cells(number, grid).flatten().to(cells.device)
        shift = self.settings.shift if told is not None else 0.0
        mixed = average_by_likeness(cells.flatten(1), alike.flatten(1), shift, self.settings.scale, groups)
        return FeatureMap(self._values.align_values(mixed.view(cells.shape)), values.size)


def count_pixels(number: Tensor, grid: tuple[int, int], most: int | None = None) -> Tensor:
    """How many pixels of each number 0 .. ``most`` of a map (H, W) each cell of a grid (h, w) has, (most + 1, h, w) int64."""
    height, width = number.shape
    kinds = (int(number.max()) if most is None else most) + 1
    rows, columns = torch.arange(height) * grid[0] // height, torch.arange(width) * grid[1] // width
    flat = (rows[:, None] * grid[1] + columns) * kinds + number.long()
    counts = torch.bincount(flat.flatten(), minlength=grid[0] * grid[1] * kinds)
    return counts.view(*grid, kinds).permute(2, 0, 1)


def group_cells(number: Tensor, grid: tuple[int, int]) -> Tensor:
    """The number that most pixels of each cell have, (h, w), of a map of numbers (H, W).

    A cell without a pixel, where an image has fewer pixels than cells, takes the number of the pixel at its center.
    """
    counts = count_pixels(number, grid)
    rows, columns = ((2 * torch.arange(n) + 1) * full // (2 * n) for n, full in zip(grid, number.shape, strict=True))
    return torch.where(counts.sum(0) > 0, counts.argmax(0), number.long()[rows[:, None], columns])


def _cut_numbers(number: Tensor, box: Box) -> Tensor:
    x0, y0, x1, y1 = box
    return number[y0:y1, x0:x1]


def _resize_dino(dino: SelfSupervised, settings: MixedSettings) -> SelfSupervised:
    """The DINO at the side that the settings name."""
    if settings.dino_side is None:
        return dino
    if not isinstance(dino, Sized):
        raise InputError("dino_side needs a DINO that can see images at another size; this one cannot: leave it out")
    resized: SelfSupervised = dino.with_side(settings.dino_side)
    return resized
