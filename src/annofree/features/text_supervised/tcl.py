"""TCL (Cha et al., CVPR 2023): a decoder on a frozen CLIP ViT, taught by captions alone to cut out what a text names.

    pixels -> CLIP, all but its last block -> CLIP's own last block, each token by itself -----------> cells that meet text
                                           -> a trained copy of it -> decoder, 4 x finer -> norm, projection -> finer cells

The last block keeps its residual and its MLP, and each token attends to itself alone.
B images, C width, D embedding, h w cells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from annofree.errors import InputError, MissingError
from annofree.features.clip import Clip
from annofree.features.paired_clip import PairedClip
from annofree.features.towers.vit import VitTower, pass_alone
from annofree.hub.cards import Card
from annofree.io.tensors import read_tensors, refuse_nan

__all__ = ["TclHead", "TclNetwork", "load_tcl"]

WEIGHTS = "model.safetensors"
_HEAD_WIDTH = 64  # of every CLIP ViT by OpenAI
_EPS = 1e-6  # of unit vectors, as released
_RELEASED = (
    (re.compile(r"^masker\.image_encoder\.backbone\.transformer\.resblocks\.\d+\."), "block."),
    (re.compile(r"^masker\.image_encoder\.decoder\.decoder\.net\."), "decoder."),
    (re.compile(r"^masker\.image_encoder\.decoder\.image_proj\.ln\."), "norm."),
    (re.compile(r"^masker\.image_encoder\.decoder\.image_proj\.proj$"), "proj"),
    (re.compile(r"^masker\.sim2mask\."), ""),
    (re.compile(r"\.gate\.gate$"), ".gate"),
)
"""Names of weights as they were released, and ours for them."""


class GatedConv(nn.Module):
    """A LayerNorm over channels, GELU and a 3 x 3 convolution of maps (B, C, h, w), times the tanh of a gate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        added: Tensor = torch.tanh(self.gate) * self.conv(F.gelu(normed))
        return added


class GatedBlock(nn.Module):
    """Maps (B, C, h, w) at twice as many cells each way, by the nearest, and what two gated convolutions add to them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.conv2 = GatedConv(width), GatedConv(width)

    def forward(self, x: Tensor) -> Tensor:
        finer = F.interpolate(x, scale_factor=2, mode="nearest")
        finer = finer + self.conv(finer)
        gated: Tensor = finer + self.conv2(finer)
        return gated


class TclHead(nn.Module):
    """All that was trained: a block of CLIP's ``width``, the decoder, norm and projection, and the line ``w`` cos + ``b``."""

    def __init__(self, width: int, dimension: int) -> None:
        super().__init__()
        self.block = ResidualAttentionBlock(width, max(1, width // _HEAD_WIDTH), act_layer=QuickGELU)
        self.decoder = nn.Sequential(GatedBlock(width), GatedBlock(width))
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, dimension))
        self.w, self.b = nn.Parameter(torch.tensor(10.0)), nn.Parameter(torch.tensor(-2.5))

    def decode(self, maps: Tensor) -> Tensor:
        """Unit features that meet text (B, D, 4 h, 4 w) of what the block gives (B, C, h, w)."""
        finer = self.decoder(maps).permute(0, 2, 3, 1)
        return F.normalize(self.norm(finer) @ self.proj, dim=-1, eps=_EPS).permute(0, 3, 1, 2)


class TclNetwork:
    """A head on the frozen image tower of the CLIP that it was trained on."""

    finer = 4

    def __init__(self, head: TclHead, tower: VitTower, card: Card, device: torch.device) -> None:
        self.head, self.card, self.device = head.to(device).eval().requires_grad_(False), card, device
        self._tower = VitTower(tower.visual, "bicubic")

    @property
    def provenance(self) -> dict[str, Any]:
        """Name, hashes, license and supervision tier."""
        return self.card.to_provenance()

    @property
    def dimension(self) -> int:
        """D, the length of the features that meet text."""
        return int(self.head.proj.shape[1])

    @property
    def patch(self) -> int:
        """Side of a patch in px."""
        return self._tower.stride

    @property
    def line(self) -> tuple[float, float]:
        """What a cosine is multiplied by, and what is added to it, before the sigmoid."""
        return float(self.head.w), float(self.head.b)

    @torch.inference_mode()
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Unit features of normalized pixels (B, 3, H, W): the decoder's (B, D, 4 h, 4 w), and CLIP's own (B, D, h, w)."""
        before = self._tower.extract_before_last(x.to(self.device))
        frozen = self._tower.align_alone(before, x)
        own = self._tower.gather_cells(pass_alone(self.head.block, before.float()), x)
        return self.head.decode(own), F.normalize(frozen.float(), dim=1, eps=_EPS)


def load_tcl(place: Path, clip: Any, *, card: Card | None = None) -> TclNetwork:
    """Load the trained part from a folder, and put it on the image tower of ``clip``, a CLIP ViT or a pair with one.

    The weights have the names that they were released with; sizes are read off them.  Raises MissingError without weights,
    InputError for those of another network, and for a CLIP that they do not fit.
    """
    path = place / WEIGHTS
    if not path.is_file():
        raise MissingError(f"expected TCL's weights in {place} as {WEIGHTS}; they are not there, add them first")
    own, card = clip.clues if isinstance(clip, PairedClip) else clip, card or Card.read(place)
    head = _fill_head(_rename(read_tensors(path)), path)
    width, dimension = head.proj.shape
    wanted = f"expected the CLIP that {card.name} was trained on, {card.use.get('clip', f'{width} wide')}, "
    if not isinstance(own, Clip) or own.card.name != card.use.get("clip", own.card.name):
        raise InputError(f"{wanted}got {own.provenance['name']}; name models with it")
    if not isinstance(own.tower, VitTower) or (own.tower.visual.conv1.out_channels, own.dimension) != (width, dimension):
        raise InputError(f"{wanted}with features of {dimension}, got {own.card.name}, which is of another size")
    return TclNetwork(head, own.tower, card, own.device)


def _rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by our names."""
    found = {}
    for name, value in state.items():
        for released, ours in _RELEASED:
            name = released.sub(ours, name)
        found[name] = value.float()
    return found


def _fill_head(state: Mapping[str, Tensor], path: Path) -> TclHead:
    """The trained part with its weights, all of them and no others."""
    refuse_nan(state, path)
    if "proj" not in state or state["proj"].ndim != 2:
        raise InputError(f"expected the weights of TCL's masker in {path}, got {', '.join(list(state)[:3]) or 'nothing'} ...")
    head = TclHead(*state["proj"].shape)
    try:
        head.load_state_dict(dict(state))
    except RuntimeError as problem:
        why = " ".join(str(problem).split())[:300]
        raise InputError(f"expected the weights of TCL's masker in {path}, got others: {why}") from None
    return head
