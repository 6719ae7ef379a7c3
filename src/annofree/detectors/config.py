"""What a detector is: its names, its sizes, and what else makes the same network again.

A detector is trained on names and finds those and no others; a class-agnostic one has the one name ``object``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from annofree.errors import InputError, unknown_name
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
    """Everything that makes the same network again; sizes are those of the papers' detectors (detectron2's defaults).

    ``names``: what it finds.  ``side``, ``longest``: pictures are read with the short side at ``side`` px, but the long one at
    most ``longest``.  ``mean``, ``std`` of the pixels in 0 .. 1.

    Backbone: ``layers`` and ``width`` are those of ``clip-resnet`` alone; ``norm`` is for the backbone and, but for
    ``frozen``, for the pyramid, too: ``sync`` takes statistics over all processes.  ``channels`` of the pyramid and of all
    that follows.

    Cascade and Mask R-CNN: ``anchors`` are the sides in px of one anchor size a level, ``ratios`` height by width.  Of the
    proposals, (training, use): ``rpn_before`` on each level and ``rpn_after`` suppression at IoU ``rpn_nms`` are kept.
    ``rpn_batch`` anchors and ``roi_batch`` boxes, ``roi_positive`` of them on objects, are learned from in each picture.
    ``roi_scale`` is the side of a box in px that is read on the level of stride 16.  ``sampling`` points a bin and axis, 0 for
    one a cell.  ``fc`` width of the box heads, ``mask_convs`` of the mask head, ``box_pool`` and ``mask_pool`` cells a side.
    ``drop_loss``: the IoU with all pseudo-labels up to which a box of the cascade teaches no class, 0 for off (CutLER).

    Mask2Former: ``queries``, ``pixel_layers`` of its pixel decoder, ``query_layers``, ``heads`` and ``ffn`` of the other one.

    Answers: scores above ``score_floor``, suppression of boxes at IoU ``nms`` within each name, at most ``detections``.

    Raises InputError for values that make no network.
    """

    kind: Literal["cascade", "mask_rcnn", "mask2former"]
    names: tuple[str, ...]
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101", "clip-resnet"] = "resnet50"
    side: int = 800
    longest: int = 1333
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    layers: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    norm: Literal["frozen", "batch", "sync", "group"] = "sync"
    channels: int = 256
    anchors: tuple[int, ...] = (32, 64, 128, 256, 512)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_before: tuple[int, int] = (2000, 1000)
    rpn_after: tuple[int, int] = (1000, 1000)
    rpn_nms: float = 0.7
    rpn_batch: int = 256
    roi_batch: int = 512
    roi_positive: float = 0.25
    roi_scale: int = 224
    sampling: int = 0
    fc: int = 1024
    mask_convs: int = 4
    box_pool: int = 7
    mask_pool: int = 14
    drop_loss: float = 0.0
    queries: int = 100
    pixel_layers: int = 6
    query_layers: int = 10
    heads: int = 8
    ffn: int = 2048
    score_floor: float = 0.05
    nms: float = 0.5
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
                raise unknown_name(kind, chosen, known)
        self._check_names()
        self._check_sizes()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> DetectorConfig:
        """Read from plain values by name; raises InputError for names that are no settings, or settings that lack."""
        known = {f.name for f in fields(cls)}
        for name in values.keys() - known:
            raise unknown_name("setting of a detector", name, known)
        for name in {"kind", "names"} - values.keys():
            raise InputError(f"expected the setting {name!r} of a detector, it is not given")
        check_values(cls, {name: value for name, value in values.items() if name not in _WORDS}, "a detector")
        return cls(**values)

    @property
    def agnostic(self) -> bool:
        """Whether it finds objects without telling them apart."""
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
