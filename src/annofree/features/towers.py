"""One way to read the two kinds of CLIP image towers."""

from __future__ import annotations

from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from torch import nn

from annofree.errors import InputError
from annofree.features.clip_resnet import ResNetTower
from annofree.features.clip_vit import VitTower
from annofree.features.position_embeddings import PositionRule

__all__ = ["Tower", "tower_of"]

Tower = ResNetTower | VitTower
"""What has ``whole``, ``dense``, ``conv4``, ``patches``, ``keys``, ``stride``, ``native`` and ``dimension``.

Those that a kind of tower does not have raise InputError, naming what has them.
"""


def tower_of(visual: nn.Module, positions: PositionRule | None = None) -> Tower:
    """Wrap the image tower of an open_clip model; raises InputError for one that is no plain CLIP ResNet or ViT."""
    if isinstance(visual, ModifiedResNet):
        return ResNetTower(visual, positions)
    if isinstance(visual, VisionTransformer):
        return VitTower(visual, positions)
    raise InputError(f"expected open_clip's ModifiedResNet or VisionTransformer as image tower, got {type(visual).__name__}")
