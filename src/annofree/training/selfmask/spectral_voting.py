"""Masks by a vote among spectral clusters, SelfMask's pseudo-labels (Shin et al., CVPRW 2022): no label is ever read.

Each source of features cuts an image into 2, 3 and 4 clusters, which are nine masks; the one that agrees best with those of
all sources wins.  D channels, h w cells, M masks, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError, build_unknown_error
from annofree.methods.components import Models
from annofree.ops.spectral import choose_winner, cluster_points, compute_eigenvectors
from annofree.protocols import Objectness
from annofree.structures import FeatureMap, Image

__all__ = [
    "SOURCES",
    "SpectralVoter",
    "Vote",
    "Voting",
    "build_voter",
    "cut_masks",
    "extract_colors",
    "load_source",
    "select_voter",
]

Source = Callable[[Sequence[Image]], list[FeatureMap]]
"""Anything that gives features (D, h, w) per image."""

_COLOR_CELLS = 32  # along the short side of an image, at most


@dataclass(frozen=True)
class Voting:
    """How candidates are made and compared; as in the original but for what is said to be ours."""

    # clusters that the features of each source are cut into, one cut for each count
    counts: tuple[int, ...] = (2, 3, 4)
    # how many times as many features a side are clustered, enlarged bilinearly
    enlarge: int = 2
    # most cells of a grid, which is made smaller, aspect kept (ours); None takes all, as the original, at a cost that grows
    # with the square of their number
    most: int | None = 4096
    # of k-means, of which the best counts
    restarts: int = 10
    # of k-means
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Vote:
    """The mask that won, ``mask`` (H, W) bool, its mean IoU with those it stood against, and the ``source`` it is from."""

    mask: Tensor
    agreement: float
    source: str


def cut_masks(features: FeatureMap, settings: Voting | None = None) -> Tensor:
    """Cut an image into clusters, once for each count: their masks, (M, H, W) bool, sampled nearest; empty ones left out.

    Features are first enlarged bilinearly with aligned corners; k clusters are k-means of the k smallest eigenvectors.
    """
    s = settings or Voting()
    values = features.values[None].float()
    h, w = _grid(features, s)
    cells = F.interpolate(values, size=(h, w), mode="bilinear", align_corners=True)[0].flatten(1).T
    vectors = compute_eigenvectors(cells, max(s.counts)).float()
    generator = torch.Generator().manual_seed(s.seed)
    labels = [cluster_points(vectors[:, :k], k, generator, restarts=s.restarts) for k in s.counts]
    masks = torch.cat([one == torch.arange(k, device=one.device)[:, None] for one, k in zip(labels, s.counts, strict=True)])
    full = F.interpolate(masks.view(1, -1, h, w).float(), size=features.window or features.size, mode="nearest")[0] > 0.5
    cropped = full[:, : features.size[0], : features.size[1]]
    return cropped[cropped.flatten(1).any(1)]


def _grid(features: FeatureMap, settings: Voting) -> tuple[int, int]:
    """How many cells are told apart, h and w."""
    h, w = (settings.enlarge * n for n in features.values.shape[1:])
    shrink = 1.0 if settings.most is None else min(1.0, (settings.most / (h * w)) ** 0.5)
    return max(1, int(h * shrink)), max(1, int(w * shrink))


class SpectralVoter:
    """Votes among the clusters of several sources; also an Objectness, whose maps are 0 or 1.

    ``models`` is the provenance of those behind the sources, by source.  Raises InputError without a source, and for other
    counts than positive ones.
    """

    def __init__(
        self, sources: Mapping[str, Source], settings: Voting | None = None, models: Mapping[str, Any] | None = None
    ) -> None:
        self.sources, self.settings, self.models = dict(sources), settings or Voting(), dict(models or {})
        if not sources:
            raise InputError("expected at least one source of features to vote, got none; name one, such as colour")
        if not self.settings.counts or min(self.settings.counts) < 1:
            raise InputError(f"expected counts of clusters of at least 1, got {list(self.settings.counts)}")

    @property
    def provenance(self) -> dict[str, Any]:
        """The rule, its settings, and the sources with the models behind them."""
        sources = {name: self.models.get(name) for name in self.sources}
        return {"objectness": "spectral voting", "sources": sources, **asdict(self.settings)}

    @property
    def tier(self) -> str:
        """The supervision that went into the masks: the most that any source has."""
        return max(["S0", *(str(model.get("tier", "S0")) for model in self.models.values())])

    def predict_maps(self, images: Sequence[Image]) -> list[Tensor]:
        """1 inside of the mask that won and 0 outside, (H, W) per image."""
        return [vote.mask.float() for vote in self.vote(images)]

    def vote(self, images: Sequence[Image]) -> list[Vote]:
        """One vote an image; masks of the first source come first where votes are equal."""
        seen = {name: source(images) for name, source in self.sources.items()}
        return [self._vote({name: maps[i] for name, maps in seen.items()}) for i in range(len(images))]

    def _vote(self, features: Mapping[str, FeatureMap]) -> Vote:
        masks = {name: cut_masks(found, self.settings).cpu() for name, found in features.items()}
        origin = [name for name, cut in masks.items() for _ in cut]
        standing = torch.cat(list(masks.values()))
        best, agreement = choose_winner(standing)
        return Vote(standing[best], agreement, origin[best])


def extract_colors(images: Sequence[Image]) -> list[FeatureMap]:
    """The mean color of each cell less that of the image, (3, h, w) per image: the control that has learned nothing."""
    found = []
    for image in images:
        pixels = torch.tensor(image.pixels).permute(2, 0, 1).float() / 255
        cell = max(2, -(-min(image.size) // _COLOR_CELLS))
        grid = max(1, image.size[0] // cell), max(1, image.size[1] // cell)
        cells = F.adaptive_avg_pool2d(pixels, grid)
        found.append(FeatureMap(cells - cells.mean((1, 2), keepdim=True), image.size))
    return found


SOURCES: Mapping[str, Callable[[Models], Source]] = {
    "dino": lambda models: models.dino.extract_keys,
    "boundaries": lambda models: models.clip.encode_boundaries,
    "dense": lambda models: models.clip.encode_dense,
    "colour": lambda models: extract_colors,
}
"""Sources by name: DINO's keys, a CLIP's boundary features (conv4 of a ResNet) and its own tokens, and plain color."""


def load_source(by: str, models: str, device: str = "auto") -> Objectness:
    """Load what masks images, of a preset's models: the sources that vote, ``build_voter``, or an objectness by its name.

    Raises InputError for an unknown name and for ``none``, and what the models raise.
    """
    if by == "voted":
        return build_voter(Models(models, device))
    source = Models(models, device, objectness=by).objectness
    if source is None:
        raise InputError("expected an objectness that masks images, such as found, got none")
    return source


def build_voter(models: Models) -> SpectralVoter:
    """The vote of a preset's DINO, its CLIP's boundary features and plain color, on at most 1024 cells a source."""
    return select_voter(("dino", "boundaries", "colour"), models, Voting(most=1024))


def select_voter(names: Sequence[str], models: Models, settings: Voting | None = None) -> SpectralVoter:
    """Let sources of some models vote; raises InputError for an unknown name, and what the models raise."""
    unknown = next((name for name in names if name not in SOURCES), None)
    if unknown is not None:
        raise build_unknown_error("source of features", unknown, SOURCES)
    behind = {name: models.dino if name == "dino" else models.clip for name in names if name != "colour"}
    sources = {name: SOURCES[name](models) for name in names}
    return SpectralVoter(sources, settings, {name: model.provenance for name, model in behind.items()})
