"""Detector configuration: class names, sizes, and everything needed to rebuild the network.

A detector finds the classes it was trained on; a class-agnostic one has the single class ``object``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from annofree.errors import InputError, build_unknown_error
from annofree.io.settings_file import check_values

__all__ = ["BACKBONES", "KINDS", "NORMS", "OBJECT", "DetectorConfig"]

KINDS = ("cascade", "mask_rcnn", "mask2former")
BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101", "clip-resnet")
NORMS = ("frozen", "batch", "sync", "group")
_WORDS = ("kind", "backbone", "norm")  # which are refused with the nearest names
OBJECT = "object"
"""The one name of a class-agnostic detector."""


@dataclass(frozen=True)
class DetectorConfig:
    """Everything that makes the same network again; sizes are those of the papers' detectors, as detectron2 has them.

    Raises InputError for values that make no network.
    """

    # cascade (Cascade Mask R-CNN), mask_rcnn or mask2former
    kind: Literal["cascade", "mask_rcnn", "mask2former"]
    # what it finds, in the order of its class ids
    names: tuple[str, ...]
    # a ResNet of torchvision, or clip-resnet, the image tower of a CLIP
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101", "clip-resnet"] = "resnet50"
    # short side in px that images are read at (detectron2)
    side: int = 800
    # most px of the long side, which the short one gives way to (detectron2)
    longest: int = 1333
    # mean of the pixels in 0 .. 1, RGB (ImageNet)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    # standard deviation of the pixels in 0 .. 1, RGB (ImageNet)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    # of clip-resnet alone: blocks of its four stages (ResNet-50)
    layers: tuple[int, ...] = (3, 4, 6, 3)
    # of clip-resnet alone: channels of its stem (ResNet-50)
    width: int = 64
    # norms of the backbone and, but for frozen, of the pyramid, too; sync takes statistics over all processes (CutLER)
    norm: Literal["frozen", "batch", "sync", "group"] = "sync"
    # channels of the pyramid and of all that follows (detectron2)
    channels: int = 256
    # Cascade and Mask R-CNN: sides in px of the one anchor size of each level (detectron2)
    anchors: tuple[int, ...] = (32, 64, 128, 256, 512)
    # height by width of the anchors (detectron2)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    # proposals of each level that are kept before suppression, in training and in use (detectron2)
    rpn_before: tuple[int, int] = (2000, 1000)
    # proposals that are kept after suppression, in training and in use (detectron2)
    rpn_after: tuple[int, int] = (1000, 1000)
    # IoU of boxes at which proposals are suppressed (detectron2)
    rpn_nms: float = 0.7
    # anchors of an image that the proposals are learned from (detectron2)
    rpn_batch: int = 256
    # boxes of an image that the heads are learned from (detectron2)
    roi_batch: int = 512
    # share of these boxes that lie on objects, at most (detectron2)
    roi_positive: float = 0.25
    # side in px of a box that is read on the level of stride 16 (FPN, equation 1)
    roi_scale: int = 224
    # points a bin and axis that RoIAlign reads; 0 for one a cell of the pyramid (detectron2)
    sampling: int = 0
    # width of the box heads (detectron2)
    fc: int = 1024
    # convolutions of the mask head (detectron2)
    mask_convs: int = 4
    # cells a side of what the box heads see (detectron2)
    box_pool: int = 7
    # cells a side of what the mask head sees (detectron2)
    mask_pool: int = 14
    # IoU with all pseudo-labels up to which a box of the cascade teaches no class (CutLER's DropLoss); 0 for off
    drop_loss: float = 0.0
    # Mask2Former: queries of an image (its paper)
    queries: int = 100
    # layers of its pixel decoder (its paper)
    pixel_layers: int = 6
    # layers of the decoder of its queries, the one before the first included (its code)
    query_layers: int = 10
    # attention heads of both decoders (its paper)
    heads: int = 8
    # width of the decoder's feed-forward layers (its paper)
    ffn: int = 2048
    # answers have a score above it (detectron2)
    score_floor: float = 0.05
    # IoU at which boxes are suppressed within each name (detectron2)
    nms: float = 0.5
    # most answers of an image (COCO)
    detections: int = 100

    def __post_init__(self) -> None:
        for name, value in list(vars(self).items()):
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        for kind, chosen, known in (
            ("kind of detector", self.kind, KINDS),
            ("backbone", self.backbone, BACKBONES),
            ("norm", self.norm, NORMS),
        ):
            if chosen not in known:
                raise build_unknown_error(kind, chosen, known)
        self._check_names()
        self._check_sizes()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> DetectorConfig:
        """Read from plain values by name; raises InputError for names that are no settings, or settings that lack."""
        known = {f.name for f in fields(cls)}
        for name in values.keys() - known:
            raise build_unknown_error("setting of a detector", name, known)
        for name in {"kind", "names"} - values.keys():
            raise InputError(f"expected the setting {name!r} of a detector, it is not given")
        check_values(cls, {name: value for name, value in values.items() if name not in _WORDS}, "a detector")
        return cls(**values)

    @property
    def agnostic(self) -> bool:
        """Whether the detector is class-agnostic."""
        return self.names == (OBJECT,)

    def _check_names(self) -> None:
        if not self.names or isinstance(self.names, str) or not all(isinstance(n, str) and n for n in self.names):
            raise InputError(f"expected the names that a detector finds, got {self.names!r}")
        if len(set(self.names)) != len(self.names):
            raise InputError("expected each name that a detector finds once, got some more than once")

    def _check_sizes(self) -> None:
        least = {"sampling": 0}
        for f in fields(self):
            value = getattr(self, f.name)
            parts = value if isinstance(value, tuple) else (value,)
            if "int" in str(f.type) and not all(type(n) is int and n >= least.get(f.name, 1) for n in parts):
                raise InputError(f"expected {f.name} of a detector in whole numbers from {least.get(f.name, 1)}, got {value!r}")
        for name, count in (("mean", 3), ("std", 3), ("layers", 4), ("anchors", 5), ("rpn_before", 2), ("rpn_after", 2)):
            if len(getattr(self, name)) != count:
                raise InputError(f"expected {count} values as {name} of a detector, got {getattr(self, name)!r}")
        if not self.ratios or min(self.ratios) <= 0 or min(self.std) <= 0:
            raise InputError(f"expected ratios and std of a detector above 0, got {self.ratios!r} and {self.std!r}")
        for name in ("rpn_nms", "roi_positive", "score_floor", "nms", "drop_loss"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InputError(f"expected {name} of a detector in 0 .. 1, got {value!r}")
