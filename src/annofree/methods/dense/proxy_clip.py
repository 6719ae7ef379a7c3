"""ProxyCLIP (Lan et al., ECCV 2024): what DINO finds alike stands in for CLIP's last attention.

    weight of cell j for cell i = softmax over j of scale x (cosine of DINO's features - shift x mean cosine), negatives cut
    feature of cell i = CLIP's last values, on DINO's grid, under these weights -> output projection -> the space of texts

Written from the paper's description; neither residual nor MLP of the last block, and CLIP's heads share the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar

from annofree.methods.dense.dense_clip import DenseEncoding
from annofree.methods.dense.mixed_clip import MixedClip, MixedSettings
from annofree.structures import Image

__all__ = ["VARIANTS", "ProxyClip", "ProxyClipSettings"]


@dataclass(frozen=True)
class ProxyClipSettings(MixedSettings):
    """What may be chosen: what the family shares, and how DINO's likeness becomes weights; as it stands, as in the paper."""


_PLAIN = ProxyClipSettings()
VARIANTS: Mapping[str, ProxyClipSettings] = MappingProxyType(
    {"default": _PLAIN, "paper": _PLAIN, "keys": replace(_PLAIN, features="keys"), "pamr": replace(_PLAIN, refine="pamr")}
)


class ProxyClip(MixedClip[ProxyClipSettings]):
    """Names in, a label map or its regions out, by a frozen CLIP and a frozen DINO.

    Raises InputError for a CLIP that does not give its last values, and for settings that the DINO cannot follow.
    """

    name: ClassVar[str] = "proxy_clip"
    variants: ClassVar[Mapping[str, Any]] = VARIANTS

    def encode(self, images: Sequence[Image]) -> list[DenseEncoding]:
        """Mix CLIP's values by DINO's likeness; one encoding an image, in order."""
        if not images:
            return []
        kept = self.settings.refine != "none"
        tokens = self._mixed(images, [None] * len(images))
        return [DenseEncoding(i.size, t, image=i if kept else None) for i, t in zip(images, tokens, strict=True)]
