"""DeepLabv3+ (Chen et al., ECCV 2018): a dilated ResNet, pooling at several rates, and a decoder that adds what is fine.

    pixels -> ResNet -> last stage -> atrous spatial pyramid pooling -> enlarged -.
                '-> first stage -> fewer channels ---------------------------------+-> convolution -> logits of each name

B images, K names, H W pixels, h w cells of the first stage, which are 4 px.  Its convolutions of 3 x 3 are depthwise
separable, which with a ResNet-50 gives the 26.6 million parameters of NamedMask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from annofree.detectors.backbones import build_body, compute_stages
from annofree.detectors.config import BACKBONES, NORMS
from annofree.errors import InputError, build_unknown_error
from annofree.io.settings_file import check_values

__all__ = ["DeepLab", "DeepLabConfig", "dilate_stages"]

_STAGES = (("layer2", 8), ("layer3", 16), ("layer4", 32))
"""The stages that may be dilated, and the strides that they come to by themselves."""


@dataclass(frozen=True)
class DeepLabConfig:
    """Everything that makes the same network again; sizes are those of NamedMask's code.

    Raises InputError for values that make no network.
    """

    # what it tells apart, in the order of its outputs from 1; 0 is the background
    names: tuple[str, ...]
    # a ResNet of torchvision, or clip-resnet, the image tower of a CLIP
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101", "clip-resnet"] = "resnet50"
    # of clip-resnet alone: blocks of its four stages
    layers: tuple[int, ...] = (3, 4, 6, 3)
    # of clip-resnet alone: channels of its stem
    width: int = 64
    # norms of the backbone
    norm: Literal["frozen", "batch", "sync", "group"] = "batch"
    # px that a cell of the last stage stands for: 8, 16 or 32; stages behind it are dilated
    stride: Literal[8, 16, 32] = 8
    # dilations of the pyramid's three convolutions
    rates: tuple[int, ...] = (12, 24, 36)
    # channels of the pyramid and of the decoder
    channels: int = 256
    # channels that the decoder takes of the first stage
    fine: int = 48
    # share of the pyramid's channels that are dropped in training
    dropout: float = 0.1
    # mean of the pixels in 0 .. 1, RGB (ImageNet)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    # standard deviation of the pixels in 0 .. 1, RGB (ImageNet)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        for name, value in list(vars(self).items()):
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        for kind, chosen, known in (("backbone", self.backbone, BACKBONES), ("norm", self.norm, NORMS)):
            if chosen not in known:
                raise build_unknown_error(kind, chosen, known)
        if not self.names or len(set(self.names)) < len(self.names):
            raise InputError(f"expected names to tell apart, each once, got {self.names!r}")
        if self.stride not in (8, 16, 32):
            raise InputError(f"expected a stride of 8, 16 or 32 px, got {self.stride}")
        for name, count in (("layers", 4), ("rates", 3), ("mean", 3), ("std", 3)):
            if len(getattr(self, name)) != count or min(getattr(self, name)) <= 0:
                raise InputError(f"expected {count} values above 0 as {name}, got {getattr(self, name)!r}")
        if min(self.width, self.channels, self.fine) < 1 or not 0 <= self.dropout < 1:
            raise InputError(
                f"expected width, channels and fine from 1 and a dropout under 1, got {self.width}, {self.channels}, "
                f"{self.fine} and {self.dropout}"
            )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> DeepLabConfig:
        """Read from plain values by name; raises InputError for names that are no settings."""
        known = {f.name for f in fields(cls)}
        for name in values.keys() - known:
            raise build_unknown_error("setting of the network", name, known)
        check_values(cls, {k: v for k, v in values.items() if k not in ("backbone", "norm", "stride")}, "the network")
        return cls(**values)


class DeepLab(nn.Module):
    """Maps normalized images (B, 3, H, W) of any size to logits (B, 1 + K, h, w) of the background and the names."""

    def __init__(self, config: DeepLabConfig) -> None:
        super().__init__()
        self.config = config
        body = build_body(config)
        dilate_stages(body, config.stride)
        for module in body.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.01
        self.backbone = nn.ModuleDict({"body": body})
        first, last = _measure_widths(body)
        self.pyramid = _Pyramid(last, config.channels, config.rates, config.dropout)
        self.fine = nn.Sequential(nn.Conv2d(first, config.fine, 1, bias=False), nn.BatchNorm2d(config.fine), nn.ReLU())
        self.decoder = nn.Sequential(
            _separate(config.channels + config.fine, config.channels, 1), nn.Conv2d(config.channels, 1 + len(config.names), 1)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits, on the cells of the first stage."""
        stages = compute_stages(self.backbone["body"], pixels)
        fine = self.fine(stages["0"])
        pooled = F.interpolate(self.pyramid(stages["3"]), size=fine.shape[-2:], mode="bilinear", align_corners=False)
        logits: Tensor = self.decoder(torch.cat([fine, pooled], 1))
        return logits


def dilate_stages(body: Any, stride: int) -> None:
    """Let a ResNet's stages come to a stride of ``stride`` px at most, by dilation in the place of steps, in place.

    The first block of a stage keeps the dilation of the stage before, as torchvision has it.
    """
    rate = 1
    for name, own in _STAGES:
        if own <= stride:
            continue
        before, rate = rate, 2 * rate
        for number, block in enumerate(getattr(body, name)):
            for module in block.modules():
                if isinstance(module, nn.AvgPool2d):  # how a CLIP's ResNet steps
                    module.kernel_size = module.stride = 1
                if isinstance(module, nn.Conv2d):
                    module.stride = (1, 1)
                    if module.kernel_size == (3, 3):
                        module.dilation = module.padding = (before, before) if number == 0 else (rate, rate)


def _measure_widths(body: Any) -> tuple[int, int]:
    """Channels of the first and of the last stage."""
    ends = (body.layer1[-1], body.layer4[-1])
    first, last = (getattr(end, "conv3", None) or end.conv2 for end in ends)
    return first.out_channels, last.out_channels


def _separate(inner: int, outer: int, rate: int) -> nn.Sequential:
    """A convolution of 3 x 3, first of each channel by itself and then over channels."""
    depth = nn.Conv2d(inner, inner, 3, padding=rate, dilation=rate, groups=inner, bias=False)
    return nn.Sequential(depth, nn.Conv2d(inner, outer, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU())


class _Pyramid(nn.Module):
    """Five looks at a map (B, C, h, w), joined to (B, channels, h, w): cell by cell, at three rates, and as a whole."""

    def __init__(self, inner: int, channels: int, rates: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        point = nn.Sequential(nn.Conv2d(inner, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.looks = nn.ModuleList([point, *(_separate(inner, channels, rate) for rate in rates)])
        # no norm: one value an image and channel, which a batch of one image would make 0
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inner, channels, 1), nn.ReLU())
        joined = nn.Conv2d((2 + len(rates)) * channels, channels, 1, bias=False)
        self.join = nn.Sequential(joined, nn.BatchNorm2d(channels), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        whole = self.whole(x).expand(-1, -1, *x.shape[-2:])
        joined: Tensor = self.join(torch.cat([*(look(x) for look in self.looks), whole], 1))
        return joined
