"""Controls: a CLIP whose boundary features are replaced by a weaker baseline, or read from another layer.

A method that separates objects by conv4_x has to beat the same method on plain colors, on an untrained network, on the other
stages of a ResNet, on the blocks of a ViT and on a DINO.  Each is brought to the grid that conv4_x would have.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from annofree.errors import InputError
from annofree.features.clip import Clip
from annofree.features.clip_network import wrap_tower
from annofree.features.paired_clip import PairedClip
from annofree.features.preprocessing import preprocess_image
from annofree.features.towers.resnet import CONV4_STRIDE, ResNetTower
from annofree.features.towers.vit import VitTower
from annofree.ops.grids import fit_size, resize_maps, shift_images, stitch_maps
from annofree.protocols import SelfSupervised, VisionLanguage
from annofree.structures import FeatureMap, Image

__all__ = ["BLOCKS", "STAGES", "Control", "LayerBoundaries", "apply_control"]

Stage = Literal["conv2", "conv3", "conv5"]
Block = Literal[
    "block-1", "block-2", "block-3", "block-4", "block-5", "block-6",
    "block-7", "block-8", "block-9", "block-10", "block-11", "block-12",
]  # fmt: skip
Control = Literal["rgb", "random-weights", Stage, Block, "dino"]
"""``conv2`` .. ``conv5`` are stages of a CLIP ResNet, ``block-N`` the tokens that leave a block of a CLIP ViT, ``dino`` the
keys of a DINO's last block."""

STAGES: tuple[str, ...] = get_args(Stage)
BLOCKS: tuple[str, ...] = get_args(Block)
_MOST_SHIFTS = 4  # a side; beyond it cells are only resized


class _ColorBoundaries(Clip):
    """Boundary features are the mean RGB color of each cell, on the grid that conv4_x would have."""

    def __init__(self, clip: Clip) -> None:
        self.__dict__.update(clip.__dict__)

    @property
    def provenance(self) -> dict[str, Any]:
        """As the CLIP itself, and what its boundaries are."""
        return super().provenance | {"boundaries": "rgb"}

    @torch.inference_mode()
    def encode_boundaries(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Boundary features (C, h, w) of each image."""
        grids = [f.values.shape[-2:] for f in super().encode_boundaries(images)]
        pictures = [torch.tensor(i.pixels).permute(2, 0, 1)[None].float() / 255 for i in images]
        cells = [F.interpolate(p, size=g, mode="area")[0] for p, g in zip(pictures, grids, strict=True)]
        return [FeatureMap(c.to(self.device), i.size) for c, i in zip(cells, images, strict=True)]


class _UntrainedBoundaries(Clip):
    """Boundary features come from a second tower of the same shape with random weights."""

    def __init__(self, clip: Clip, seed: int) -> None:
        self.__dict__.update(clip.__dict__)
        self._other = copy.copy(clip)
        self._other._tower = wrap_tower(_reset(copy.deepcopy(clip._tower.visual), seed))

    @property
    def provenance(self) -> dict[str, Any]:
        """As the CLIP itself, and what its boundaries are."""
        return super().provenance | {"boundaries": "random-weights"}

    def encode_boundaries(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Boundary features (C, h, w) of each image."""
        return self._other.encode_boundaries(images)


def _reset(tower: nn.Module, seed: int) -> nn.Module:
    """Re-initialize all convolutions of a tower (He) and reset its normalization statistics."""
    generator = torch.Generator().manual_seed(seed)
    for module in tower.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            noise = torch.randn(module.weight.shape, generator=generator) * (2 / fan_in) ** 0.5
            module.weight.data.copy_(noise)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    return tower


class LayerBoundaries:
    """Boundary features from a ``layer`` of a CLIP's image tower, by name.

    Raises InputError for a stage of what is no ResNet, and for a block that the ViT has not.
    """

    def __init__(self, clip: Clip, layer: str) -> None:
        self._clip, self.layer, tower = clip, layer, clip._tower
        known = STAGES if isinstance(tower, ResNetTower) else BLOCKS[: _count_blocks(tower)]
        if layer not in known:
            raise InputError(f"expected a layer of {clip.card.name} among {', '.join(known) or 'none'}, got {layer}")

    @property
    def provenance(self) -> dict[str, Any]:
        """That of the CLIP, and the layer."""
        return self._clip.provenance | {"layer": self.layer}

    @torch.inference_mode()
    def encode_boundaries(self, images: Sequence[Image]) -> list[FeatureMap]:
        """What leaves the layer, (C, h, w) of each image, on the grid of conv4_x: shifted and stitched, or averaged."""
        return [FeatureMap(self._see(image), image.size) for image in images]

    def _see(self, image: Image) -> Tensor:
        clip, shifts = self._clip, self._clip.settings["boundary_shifts"]
        side = clip.settings["boundary_side"]
        stride, read = self._find_layer()
        x = preprocess_image(image, fit_size(image.size, side, max(stride, CONV4_STRIDE)), clip._mean, clip._std)
        factor = min(max(1, shifts * stride // CONV4_STRIDE), _MOST_SHIFTS)
        cells = stitch_maps(read(shift_images(x, stride, factor).to(clip.dtype)), factor)[0].float()
        return _fit_grid(cells, _find_grid(clip, image))

    def _find_layer(self) -> tuple[int, Callable[[Tensor], Tensor]]:
        """Px from a cell of the layer to the next, and what reads it of normalized images."""
        tower = self._clip._tower
        if isinstance(tower, VitTower):
            left = _count_blocks(tower) - 1 - BLOCKS.index(self.layer)
            return tower.stride, lambda x: tower.gather_cells(tower._before(x, left), x)
        assert isinstance(tower, ResNetTower)  # noqa: S101 -- who has stages is one
        last = int(self.layer.removeprefix("conv"))
        return 2**last, lambda x: _run_stages(tower.visual, x, last - 1)


class _DinoBoundaries:
    """Keys of a DINO's last block on the grid that conv4_x of a CLIP would have."""

    def __init__(self, dino: SelfSupervised, clip: Clip) -> None:
        self._dino, self._clip = dino, clip

    @property
    def provenance(self) -> dict[str, Any]:
        """That of the DINO."""
        return self._dino.provenance

    def encode_boundaries(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Keys (C, h, w) of each image, bilinear between its patches."""
        pairs = zip(self._dino.extract_keys(images), images, strict=True)
        return [FeatureMap(_fit_grid(keys.values, _find_grid(self._clip, image)), image.size) for keys, image in pairs]


def _run_stages(visual: Any, x: Tensor, count: int) -> Tensor:
    """What leaves the first ``count`` stages of a ResNet, for normalized images (B, 3, H, W)."""
    cells: Tensor = visual.stem(x)
    for number in range(1, count + 1):
        cells = getattr(visual, f"layer{number}")(cells)
    return cells


def _count_blocks(tower: Any) -> int:
    """The blocks of a ViT, 0 for towers that cannot be read block by block."""
    return len(tower.visual.transformer.resblocks) if isinstance(tower, VitTower) else 0


def _find_grid(clip: Clip, image: Image) -> tuple[int, int]:
    """(h, w) of conv4_x, shifts among them."""
    size, shifts = fit_size(image.size, clip.settings["boundary_side"], CONV4_STRIDE), clip.settings["boundary_shifts"]
    return size[0] // CONV4_STRIDE * shifts, size[1] // CONV4_STRIDE * shifts


def _fit_grid(cells: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cells (C, h, w) on another grid: averaged where there are more of them, else bilinear between their centers."""
    if cells.shape[-2] > grid[0] or cells.shape[-1] > grid[1]:
        return F.interpolate(cells[None], size=grid, mode="area")[0]
    return resize_maps(cells, grid)


def apply_control(
    clip: Any,
    control: Control,
    seed: int = 0,
    *,
    dino: SelfSupervised | None = None,
    clues: VisionLanguage | None = None,
) -> Any:
    """Return a copy of a CLIP, or of a pair, with other boundary features.

    ``rgb`` and ``random-weights`` are for ResNets only; ``dino`` needs a ``dino``.  ``clues`` gives all else than boundaries
    where a layer is read: a CLIP that remembers what it saw is faster.  Raises InputError for a layer that is not there.
    """
    edges: Any = clip.edges if isinstance(clip, PairedClip) else clip
    if control in ("rgb", "random-weights"):
        other = _ColorBoundaries(edges) if control == "rgb" else _UntrainedBoundaries(edges, seed)
        return other if edges is clip else PairedClip(clip.clues, other)
    if control != "dino":
        return PairedClip(clues or clip, LayerBoundaries(edges, control))
    if dino is None:
        raise InputError("expected a DINO for the control dino, got none; name models with one")
    return PairedClip(clues or clip, _DinoBoundaries(dino, edges))
