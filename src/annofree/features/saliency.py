"""Objectness from DINO: FOUND and its untrained seed (CVPR 2023), and TokenCut's cut as a soft map.

h w patches, D channels of a key, H W pixels.  Patches cover an image that may be padded to whole ones at the bottom and the
right, so maps are drawn at the padded size and cropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError, MissingError
from annofree.hub.cards import hash_file
from annofree.io.tensors import refuse_nan
from annofree.ops.grids import resize_maps
from annofree.ops.ncut import compute_ncut
from annofree.protocols import SelfSupervised
from annofree.structures import FeatureMap, Image

__all__ = ["FoundBackground", "FoundObjectness", "TokenCutMap", "find_background_patches", "read_found_head"]

_EPS = 1e-10


def read_found_head(path: Path) -> tuple[Tensor, Tensor]:
    """Read FOUND's head, a 1 x 1 convolution: its weight (D) and its bias ().

    The file is safetensors or a state dict of torch, flat or under ``decoder``.  Raises MissingError where there is none,
    InputError for one that holds anything else.
    """
    if not path.is_file():
        raise MissingError(f"expected FOUND's head (.pt or .safetensors) at {path}; there is none, fetch it first")
    is_safe = path.suffix == ".safetensors"
    state = load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
    flat = _flat(state)
    refuse_nan(flat, path)
    weight, bias = flat.get("weight"), flat.get("bias")
    if weight is None or bias is None or weight.shape[:1] + weight.shape[2:] != (1, 1, 1) or bias.shape != (1,):
        got = ", ".join(f"{k} {tuple(v.shape)}" for k, v in flat.items()) or "nothing"
        raise InputError(f"expected decoder.weight (1, D, 1, 1) and decoder.bias (1) in {path}, got {got}")
    return weight.float().flatten(), bias.float()[0]


def _flat(state: Mapping[str, Any]) -> dict[str, Tensor]:
    inner = state.get("decoder", state)
    return {name.removeprefix("decoder."): value for name, value in inner.items() if isinstance(value, Tensor)}


def _on_pixels(patches: Tensor, grid: FeatureMap) -> Tensor:
    """Draw a map (h, w) of patches at the size of its image, (H, W), bilinear."""
    full = resize_maps(patches[None], grid.window or grid.size)[0]
    return full[: grid.size[0], : grid.size[1]]


class FoundObjectness:
    """FOUND: a linear layer on the keys of DINO ViT-S/8 that predicts the objectness of each patch."""

    def __init__(self, dino: SelfSupervised, head: Path) -> None:
        self.dino, self.head = dino, head
        self._weight, self._bias = read_found_head(head)

    @property
    def provenance(self) -> dict[str, Any]:
        """The head with its hash, license and tier, and DINO's."""
        head = {"name": self.head.name, "licence": "Apache-2.0", "tier": "S0", "sha256": hash_file(self.head)}
        return {"objectness": "found", "head": head, "dino": self.dino.provenance}

    def predict_maps(self, images: Sequence[Image]) -> list[Tensor]:
        """How likely each pixel belongs to some thing, (H, W) in 0 .. 1 per image: logits drawn bilinear, then a sigmoid.

        Raises InputError if the keys do not have the dimension that the head was trained for.
        """
        return [torch.sigmoid(_on_pixels(self._logits(keys), keys)) for keys in self.dino.extract_keys(images)]

    def _logits(self, keys: FeatureMap) -> Tensor:
        values = keys.values
        if len(values) != len(self._weight):
            raise InputError(f"{self.head.name} reads {len(self._weight)} channels, got {len(values)}; use its DINO")
        return torch.einsum("dhw,d->hw", values, self._weight.to(values)) + self._bias.to(values)


class _Rule:
    """An objectness that DINO gives by a ``rule`` with one threshold, ``tau``."""

    rule: ClassVar[str]

    def __init__(self, dino: SelfSupervised, tau: float) -> None:
        self.dino, self.tau = dino, tau

    @property
    def provenance(self) -> dict[str, Any]:
        """The rule, and DINO's provenance."""
        return {"objectness": self.rule, "tau": self.tau, "dino": self.dino.provenance}


class FoundBackground(_Rule):
    """FOUND without its trained layer: patches unlike the least attended patch are foreground."""

    rule = "found-bkg"

    def __init__(self, dino: SelfSupervised, tau: float = 0.3) -> None:
        super().__init__(dino, tau)

    def predict_maps(self, images: Sequence[Image]) -> list[Tensor]:
        """1 inside of things and 0 outside, bilinear between patches, (H, W) per image."""
        pairs = self.dino.extract_keys_and_attention(images)
        return [_on_pixels((~find_background_patches(k.values, a.values, self.tau)).float(), k) for k, a in pairs]


def find_background_patches(keys: Tensor, attention: Tensor, tau: float = 0.3) -> Tensor:
    """Which patches (h, w) are background, from ``keys`` (D, h, w) and ``attention`` (heads, h, w) of the class token.

    Heads are weighted by how few patches they attend to: beta = log(sum of all shares / own share), with the share of patches
    above the mean attention of all heads.  The least attended patch is the seed; patches similar to it (cosine > ``tau``) are
    background.
    """
    heads, grid = len(attention), attention.shape[1:]
    seen = attention.flatten(1)
    share = (seen > seen.mean()).float().mean(1) + _EPS
    beta = torch.log(share.sum() / share)
    seed = (beta @ seen).argmin()
    weighted = keys.reshape(heads, -1, seen.shape[1]) * beta[:, None, None]
    units = F.normalize(weighted.flatten(0, 1), dim=0)
    return (units[:, seed] @ units > tau).view(grid)


class TokenCutMap(_Rule):
    """TokenCut's second eigenvector, seed side up, stretched to 0 .. 1."""

    rule = "tokencut"

    def __init__(self, dino: SelfSupervised, tau: float = 0.2) -> None:
        super().__init__(dino, tau)

    def predict_maps(self, images: Sequence[Image]) -> list[Tensor]:
        """How far each pixel is on the side of the thing, bilinear between patches, (H, W) in 0 .. 1 per image."""
        return [_on_pixels(self._patches(keys.values), keys) for keys in self.dino.extract_keys(images)]

    def _patches(self, keys: Tensor) -> Tensor:
        cut = compute_ncut(keys.flatten(1).T.cpu().numpy(), self.tau)
        return torch.from_numpy(cut).to(keys.device).view(keys.shape[1:])
