"""TCL (Cha et al., CVPR 2023): CLIP and a decoder that captions taught to cut out what a text names.

    window -> decoder's cells . text -> sigmoid of a learned line -> PAMR -> mixed with CLIP's own cells -> mask of each name

Each name is a mask by itself, in 0 .. 1, and the background a constant.  R rows scored, N windows, D embedding, h w cells of a
patch, of which the decoder makes 4 h 4 w.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.clues.background import Asked, Background
from annofree.errors import InputError
from annofree.methods.dense.windowed import (
    DrawWindow,
    WindowedEncoding,
    WindowedMethod,
    WindowedNetwork,
    WindowedSettings,
)
from annofree.ops.grids import resize_maps
from annofree.ops.pamr import apply_pamr
from annofree.protocols import VisionLanguage
from annofree.structures import Classes, Image

__all__ = ["VARIANTS", "Tcl", "TclEncoding", "TclSettings", "TextMasker", "keep_knowledge"]

_PROMPTS = "tcl"
_KNOWN_SCALE, _KNOWN_MIDDLE = 10.0, 0.25  # of CLIP's own cosines, as released


class TextMasker(WindowedNetwork, Protocol):
    """A network whose cells meet text, such as ``features.text_supervised.tcl.TclNetwork``."""

    @property
    def dimension(self) -> int:
        """D, the length of the features that meet text."""
        ...

    @property
    def line(self) -> tuple[float, float]:
        """What a cosine is multiplied by, and what is added, before the sigmoid."""
        ...

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Unit features of normalized pixels (B, 3, H, W): the decoder's (B, D, 4 h, 4 w), and CLIP's own (B, D, h, w)."""
        ...


@dataclass(frozen=True)
class TclSettings(WindowedSettings):
    """What may be chosen, beside what methods with windows share.  Raises InputError for a share outside of 0 .. 1."""

    # a constant score, 0.4 with PAMR and 0.5 without (released), or none where all pixels have a name
    background: Background = field(default_factory=lambda: Background("threshold", threshold=0.4))
    # whether masks are drawn towards the image's edges, before CLIP's own cells come in
    pamr: bool = True
    # the share of CLIP's own cells in a mask, which keep what it knew before (``kp_w`` in the released code); 0 leaves them out
    known: float = 0.3
    # the set of prompts: the nine released ones, averaged as they are
    prompts: str = _PROMPTS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.known <= 1:
            raise InputError(f"expected a share known of 0 to 1, got {self.known}")


_OFFICIAL = TclSettings()
VARIANTS: Mapping[str, TclSettings] = MappingProxyType(
    {
        "default": _OFFICIAL,
        "official": _OFFICIAL,
        "plain": replace(_OFFICIAL, pamr=False, background=Background("threshold", threshold=0.5)),
        "all-named": replace(_OFFICIAL, background=Background("none")),
    }
)


@dataclass(frozen=True, eq=False)
class TclEncoding(WindowedEncoding):
    """All of an image that needs no class name.

    Unit features of its windows, ``fine`` (N, D, 4 h, 4 w) and CLIP's own ``known`` (N, D, h, w), and their pixels as PAMR
    compares them, ``small`` (N, 3, 4 h, 4 w).  ``patch`` is the px of a cell.
    """

    fine: Tensor
    known: Tensor
    small: Tensor
    patch: int


class Tcl(WindowedMethod[TclSettings, TclEncoding]):
    """Names in, a label map or its regions out, by one ``network`` and the text tower of the ``clip`` that it is made of.

    Raises InputError for an unknown variant, and for a CLIP whose text has another length than the network's features.
    """

    name: ClassVar[str] = "tcl"
    variants: ClassVar[Mapping[str, Any]] = VARIANTS

    def __init__(self, network: TextMasker, clip: VisionLanguage, settings: TclSettings | str = "default") -> None:
        super().__init__(network, settings)
        if network.dimension != clip.dimension:
            raise InputError(
                f"expected the CLIP that TCL was trained on, with text of length {network.dimension}, "
                f"got {clip.provenance['name']} with {clip.dimension}"
            )
        self.network, self.clip = network, clip.with_prompts(self.settings.prompts)

    @property
    def provenance(self) -> dict[str, Any]:
        """Method, settings, and the models with their hashes and tiers."""
        models = [self.network.provenance, self.clip.provenance]
        return {"method": self.name, "settings": asdict(self.settings), "models": models}

    def remarks(self, classes: Classes) -> list[str]:
        """What a person should know before trusting the answer for these names."""
        return self.clip.remarks(self.settings.background.list_rows(classes).rows)

    def encode(self, images: Sequence[Image]) -> list[TclEncoding]:
        """Look at the windows of each image; one encoding an image, in order."""
        return [self._encode(image) for image in images]

    def _encode(self, image: Image) -> TclEncoding:
        cut, batches = self._cut(image)
        pairs = [self.network.encode(x) for x in batches]
        fine, known = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        x = torch.cat(batches)
        small = F.interpolate(x, size=tuple(fine.shape[2:]), mode="bilinear", align_corners=True)
        return TclEncoding(cut.size, cut.resized, cut.boxes, fine, known, small, self.network.patch)

    def draw_windows(self, encoding: TclEncoding, asked: Asked) -> DrawWindow:
        """Masks of names, and behind them the constant that stands for the background."""
        words = self.clip.encode_text(asked.rows).to(encoding.fine)

        def draw(n: int, part: slice) -> Tensor:
            patch, (h, w) = encoding.patch, encoding.known.shape[2:]
            maps = resize_maps(self.compute_masks(encoding, n, words[part]), (h * patch, w * patch))
            rest = part.stop - part.start - len(maps)  # 1 for the background
            return torch.cat([maps, maps.new_full((rest, *maps.shape[1:]), self.settings.background.threshold)])

        return draw

    def compute_masks(self, encoding: TclEncoding, n: int, words: Tensor) -> Tensor:
        """The soft masks of ``words`` (k, D) in the n-th window, (k, 4 h, 4 w): PAMR first, then CLIP's own cells."""
        if not len(words):
            return encoding.fine.new_zeros(0, *encoding.fine.shape[2:])
        weight, offset = self.network.line
        masks = torch.sigmoid(weight * torch.einsum("dhw,kd->khw", encoding.fine[n], words) + offset)
        if self.settings.pamr:
            masks = apply_pamr(encoding.small[n], masks)
        return keep_knowledge(masks, torch.einsum("dhw,kd->khw", encoding.known[n], words), self.settings.known)


def keep_knowledge(masks: Tensor, cosines: Tensor, share: float) -> Tensor:
    """Mix masks (K, 4 h, 4 w) with what CLIP's own ``cosines`` (K, h, w) say: ``share`` of sigmoid(10 (cos - 0.25)).

    >>> keep_knowledge(torch.ones(1, 2, 2), torch.full((1, 1, 1), 0.25), 0.5).tolist()
    [[[0.75, 0.75], [0.75, 0.75]]]
    """
    if not share:
        return masks
    known = torch.sigmoid(_KNOWN_SCALE * (cosines - _KNOWN_MIDDLE))
    return share * resize_maps(known, (masks.shape[1], masks.shape[2])) + (1 - share) * masks
