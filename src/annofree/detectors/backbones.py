"""Detector backbones: a ResNet of torchvision or CLIP with a feature pyramid.

    image -> stem -> layer1 .. layer4 -> FPN -> five levels of strides 4, 8, 16, 32 and 64

Feature pyramid: Lin et al., CVPR 2017.  Norms within the pyramid: as in CutLER's detector.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from annofree.detectors.config import DetectorConfig
from annofree.errors import InputError

__all__ = [
    *("LEVELS", "STRIDES", "Backbone", "BodyConfig", "LoadedBackbone"),
    *("build_body", "check_norm", "compute_stages", "load_backbone"),
]

LEVELS = ("0", "1", "2", "3")
"""The levels of the pyramid that boxes are read from; the coarsest, ``pool``, makes proposals only."""
STRIDES = (4, 8, 16, 32)
"""Of those levels, in px."""
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_GROUPS = 32  # Wu & He, ECCV 2018


class Backbone(nn.Module):
    """Maps normalized images (B, 3, H, W), sides multiples of 32, to levels (B, C, H/s, W/s) by name, finest first.

    ``body`` has the keys of torchvision's ResNets, or of open_clip's ModifiedResNet, without the pooling head.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.body = build_body(config)
        body: Any = self.body
        deepest = body.layer4[-1]
        last = deepest.conv3 if hasattr(deepest, "conv3") else deepest.conv2
        widths = [last.out_channels // 2**i for i in (3, 2, 1, 0)]
        norm = None if config.norm == "frozen" else _norm(config.norm)  # a frozen norm without statistics does nothing
        self.fpn = FeaturePyramidNetwork(widths, config.channels, LastLevelMaxPool(), norm)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the levels, in float32 also where the convolutions ran in half precision."""
        return {name: level.float() for name, level in self.fpn(self.compute_stages(pixels)).items()}

    def compute_stages(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the four stages of the ResNet, finest first."""
        return compute_stages(self.body, pixels)


def compute_stages(body: Any, pixels: Tensor) -> dict[str, Tensor]:
    """Return the four stages of a ResNet for normalized pixels (B, 3, H, W), finest first."""
    x, stages = body.stem(pixels), {}
    for name, stage in zip(LEVELS, (body.layer1, body.layer2, body.layer3, body.layer4), strict=True):
        x = stages[name] = stage(x)
    return stages


class BodyConfig(Protocol):
    """What makes a ResNet, as ``DetectorConfig`` explains it."""

    @property
    def backbone(self) -> str:
        """A ResNet of torchvision, or clip-resnet."""
        ...

    @property
    def layers(self) -> tuple[int, ...]:
        """Of clip-resnet: blocks of its stages."""
        ...

    @property
    def width(self) -> int:
        """Of clip-resnet: channels of its stem."""
        ...

    @property
    def norm(self) -> str:
        """Its norms."""
        ...


def build_body(config: BodyConfig) -> nn.Module:
    """Make a ResNet without its pooling head, of random weights."""
    body = _clip_body(config) if config.backbone == "clip-resnet" else _body(config)
    _swap_norms(body, _norm(config.norm))
    return body


class _ResNet(resnet.ResNet):  # type: ignore[misc]
    def stem(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to a fourth of the size."""
        pooled: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return pooled


def _body(config: BodyConfig) -> nn.Module:
    kinds: dict[str, tuple[type[nn.Module], list[int]]] = {
        "resnet18": (resnet.BasicBlock, [2, 2, 2, 2]),
        "resnet34": (resnet.BasicBlock, [3, 4, 6, 3]),
        "resnet50": (resnet.Bottleneck, [3, 4, 6, 3]),
        "resnet101": (resnet.Bottleneck, [3, 4, 23, 3]),
    }
    body: nn.Module = _ResNet(*kinds[config.backbone])
    del body.fc, body.avgpool
    return body


def _clip_body(config: BodyConfig) -> nn.Module:
    body: nn.Module = ModifiedResNet(list(config.layers), output_dim=1, heads=1, image_size=32, width=config.width)
    del body.attnpool
    return body


# norms


def _norm(kind: str) -> Callable[[int], nn.Module]:
    makers: dict[str, Callable[[int], nn.Module]] = {
        "frozen": FrozenBatchNorm2d,
        "batch": nn.BatchNorm2d,
        "sync": nn.SyncBatchNorm,
        "group": _group_norm,
    }
    return makers[kind]


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(math.gcd(_GROUPS, channels), channels)


def _swap_norms(module: nn.Module, norm: Callable[[int], nn.Module]) -> None:
    """Replace each batch norm, keeping its scale, as some start from zero."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            other = norm(child.num_features)
            other.load_state_dict({k: v for k, v in child.state_dict().items() if k in other.state_dict()})
            setattr(module, name, other)
        else:
            _swap_norms(child, norm)


def check_norm(norm: str, device: str) -> None:
    """Raise InputError where statistics cannot be taken over all processes: ``sync`` on several processes without GPUs.

    One process alone has all images, so that ``sync`` is ``batch`` there.
    """
    spread = torch.distributed.is_available() and torch.distributed.is_initialized()
    if norm == "sync" and spread and torch.distributed.get_world_size() > 1 and not device.startswith("cuda"):
        raise InputError("expected GPUs for norm = 'sync' in several processes, got the CPU; choose norm = 'group' or 'frozen'")


# weights to start from


class LoadedBackbone(NamedTuple):
    """Result of loading weights: ``loaded``, ``left_out`` of the source, and ``fresh`` ones that kept their initialization."""

    loaded: tuple[str, ...]
    left_out: tuple[str, ...]
    fresh: tuple[str, ...]

    def __str__(self) -> str:
        out = sorted(
            {".".join(name.split(".")[:2]) if name.startswith("visual.") else name.split(".")[0] for name in self.left_out}
        )
        said = f"took {len(self.loaded)} weights"
        return f"{said}, left out {', '.join(out[:8])}{' ...' if len(out) > 8 else ''}" if out else said


def load_backbone(network: nn.Module, state: Mapping[str, Tensor]) -> LoadedBackbone:
    """Load the ResNet of a detector from a state dict of torchvision, DINO or CLIP, in place.

    Names may stand behind a prefix, such as ``visual.`` or ``module.backbone.``; weights outside the ResNet are dropped,
    and so are running statistics where the norm has none.  Raises InputError if a weight is missing or has another shape.
    """
    body: nn.Module = network.backbone.body  # type: ignore[union-attr, assignment]
    prefix = _prefix(state)
    given = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    wanted = body.state_dict()
    lacking = sorted(n for n in wanted.keys() - given.keys() if not n.endswith("num_batches_tracked"))
    shapes = [n for n in wanted if n in given and given[n].shape != wanted[n].shape]
    for said, names in (("lack", lacking), ("have another shape at", shapes)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise InputError(
                f"expected the weights of the detector's ResNet, but those given {said} {', '.join(names[:3])}{more}; "
                "do backbone, layers and width fit?"
            )
    taken = {name: given[name] for name in wanted if name in given}
    body.load_state_dict(taken, strict=False)
    out = tuple(sorted(name for name in state if name.removeprefix(prefix) not in taken or not name.startswith(prefix)))
    fresh = tuple(name for name in network.state_dict() if not name.startswith("backbone.body."))
    return LoadedBackbone(tuple(f"backbone.body.{name}" for name in taken), out, fresh)


def _prefix(state: Mapping[str, Tensor]) -> str:
    """What stands before the names of a ResNet: before its first convolution, which lies in no layer."""
    found = sorted((n.removesuffix("conv1.weight") for n in state if n.endswith("conv1.weight") and "layer" not in n), key=len)
    if not found:
        raise InputError("expected the state dict of a ResNet, got one without conv1.weight")
    return found[0]
