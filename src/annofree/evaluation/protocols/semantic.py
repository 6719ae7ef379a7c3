"""The rules by which papers score label maps, by name, so that a number can say which ones it obeys.

A protocol is the truth that is read, the words that are asked for, what becomes of the background, of classes that are
nowhere and of sizes, and which images count.  How a method sees the image (its own resizing, windows, thresholds) is
the method's, and is written beside the scores with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image

from annofree.datasets.benchmarks.ade20k import open_ade20k
from annofree.datasets.benchmarks.cityscapes import open_cityscapes
from annofree.datasets.benchmarks.coca import open_coca
from annofree.datasets.benchmarks.coco_object import open_coco_instances, open_coco_stuff
from annofree.datasets.benchmarks.coco_stuff import open_coco_stuff_171
from annofree.datasets.benchmarks.cub import open_cub
from annofree.datasets.benchmarks.imagenet_s import open_imagenet_s
from annofree.datasets.benchmarks.pascal_context import open_pascal_context
from annofree.datasets.benchmarks.png_folder import open_png_folder
from annofree.datasets.benchmarks.semantic import Labels, SemanticDataset
from annofree.datasets.benchmarks.voc import open_voc
from annofree.datasets.names import BACKGROUND, VOC_SPELLINGS
from annofree.datasets.scene_names import COCO_SCENERY, VOC_SCENERY
from annofree.errors import InputError, build_unknown_error
from annofree.evaluation.metrics.semantic import Absent
from annofree.evaluation.protocols.look import Look

__all__ = ["PROTOCOLS", "Background", "SemanticProtocol", "find_semantic_protocol", "resize_labels", "resize_shorter_side"]

Background = Literal["separate", "asked", "ignored"]
"""separate: the method says by itself what is none of the names; asked: the background's name is asked for like the rest;
ignored: its pixels are not scored."""

Open = Callable[[Path, Path | None, str | None], SemanticDataset]


@dataclass(frozen=True)
class SemanticProtocol:
    """One way to score label maps by their mean IoU."""

    # what it is asked for by
    name: str
    # whose rules they are, in a line
    about: str
    # reads the truth from its folder, that of the images, and a split
    open: Open = field(repr=False)
    # the words asked for in place of a data set's own
    spellings: Mapping[str, str] = field(default_factory=dict)
    # who says what is none of the names, or whether that is scored at all
    background: Background = "separate"
    # what a class that is nowhere does to the mean
    absent: Absent = "skip"
    # px that the truth's shorter side is made first; None leaves it
    truth_side: int | None = None
    # whether a prediction is brought to the truth's size, else sizes have to agree
    stretch: bool = False
    # images with fewer px of things, counted before any resizing, are left out
    min_labelled: int = 0
    # how training-free methods look at the images, where papers agree on it
    look: Look | None = None

    def open_dataset(self, truth: Path, images: Path | None = None, split: str | None = None) -> SemanticDataset:
        """Open the truth as the protocol wants it; raises InputError when files are missing or options do not fit."""
        opened = self.open(truth, images, split).with_spellings(self.spellings)
        return opened.without_background() if self.background == "ignored" else opened

    def is_counted(self, labels: Labels, background: int | None) -> bool:
        """Tell whether an image with this truth, as it is in the files, takes part."""
        if not self.min_labelled:
            return True
        things = (labels >= 0) & (labels != (-1 if background is None else background))
        return int(np.count_nonzero(things)) >= self.min_labelled

    def to_json_dict(self) -> dict[str, Any]:
        """Return the rules as plain values, to be written beside scores."""
        rules = ("name", "about", "background", "absent", "truth_side", "stretch", "min_labelled")
        told = {rule: getattr(self, rule) for rule in rules} | {"spellings": dict(self.spellings)}
        return told | ({"look": asdict(self.look)} if self.look else {})


def resize_shorter_side(labels: Labels, side: int) -> Labels:
    """Resize labels (H, W) so that the shorter side is ``side`` px and the longer is cut to whole px, by nearest pixel center.

    This is torchvision's resize of a Pillow image with nearest interpolation.

    >>> resize_shorter_side(np.zeros((4, 7), np.int32), 3).shape
    (3, 5)
    """
    height, width = labels.shape
    short, long = min(height, width), max(height, width)
    longer = int(side * long / short)
    size = (side, longer) if width <= height else (longer, side)  # width, height
    return np.array(PIL.Image.fromarray(labels).resize(size, PIL.Image.Resampling.NEAREST), np.int32)


def resize_labels(labels: Labels, size: tuple[int, int]) -> Labels:
    """Resize labels to ``size`` (H, W) as OpenCV's nearest interpolation does: each pixel takes that at floor(index x scale).

    Its centers are not Pillow's: enlarged maps lie up to half a source pixel to the right and below.

    >>> resize_labels(np.array([[0, 1]], np.int32), (1, 5)).tolist()
    [[0, 0, 0, 1, 1]]
    """
    rows, columns = (_sources(old, new) for old, new in zip(labels.shape, size, strict=True))
    return np.asarray(labels[rows[:, None], columns])


def _sources(old: int, new: int) -> Any:
    step = 1 / (new / old)  # twice divided in double precision, as there
    return np.minimum(np.floor(np.arange(new) * step).astype(np.int64), old - 1)


def _own_images(images: Path | None, what: str) -> None:
    if images is not None:
        raise InputError(f"expected no folder of images, for {what} brings its own; leave --images out")


def _one_split(split: str | None, what: str) -> None:
    if split is not None:
        raise InputError(f"expected no split, for {what} has none; leave --split out")


def _files(truth: Path, images: Path | None, split: str | None) -> SemanticDataset:
    _one_split(split, "a truth given as files")
    return open_png_folder(truth, images) if truth.is_dir() else open_coco_instances(truth, images)


def _instances(truth: Path, images: Path | None, split: str | None) -> SemanticDataset:
    _one_split(split, "a file of instances")
    return open_coco_instances(truth, images)


def _stuff(unlabeled: Literal["background", "void"]) -> Open:
    def opened(truth: Path, images: Path | None, split: str | None) -> SemanticDataset:
        _one_split(split, "a folder of pixel maps")
        return open_coco_stuff(truth, images, unlabeled)

    return opened


def _voc(truth: Path, images: Path | None, split: str | None) -> SemanticDataset:
    _own_images(images, "VOC")
    return open_voc(truth, split or "val")


def _stuff_171(truth: Path, images: Path | None, split: str | None) -> SemanticDataset:
    _one_split(split, "a folder of pixel maps")
    return open_coco_stuff_171(truth, images)


def _context(truth: Path, images: Path | None, split: str | None) -> SemanticDataset:
    _own_images(images, "Pascal Context")
    return open_pascal_context(truth, split or "val")


def _ade20k(truth: Path, images: Path | None, split: str | None) -> SemanticDataset:
    _own_images(images, "ADE20K")
    return open_ade20k(truth, split or "validation")


def _cityscapes(truth: Path, images: Path | None, split: str | None) -> SemanticDataset:
    _own_images(images, "Cityscapes")
    return open_cityscapes(truth, split or "val")


def _coca(truth: Path, images: Path | None, split: str | None) -> SemanticDataset:
    _own_images(images, "CoCA")
    _one_split(split, "CoCA")
    return open_coca(truth)


def _imagenet_s(truth: Path, images: Path | None, split: str | None) -> SemanticDataset:
    _own_images(images, "ImageNet-S")
    return open_imagenet_s(truth, split or "validation")


def _cub(ask: Literal["bird", "breed"]) -> Open:
    def opened(truth: Path, images: Path | None, split: str | None) -> SemanticDataset:
        _own_images(images, "CUB")
        if split not in (None, "train", "test"):
            raise build_unknown_error("split", str(split), ("train", "test"))
        return open_cub(truth, "train" if split == "train" else "test", ask)

    return opened


_DEFAULT = SemanticProtocol(
    "default",
    "label maps with classes.json, or COCO instances (first wins), as they are; one matrix, absent classes left out",
    _files,
)
_VOC21 = SemanticProtocol("voc21", "VOC 2012 val, 20 classes and background, VOC's own names (also GroupViT's and TCL's)", _voc)
_CONTEXT60 = SemanticProtocol(
    "context60",
    "Pascal Context val, 59 names and background, which is asked by that word",
    _context,
    look=Look(336, words=(BACKGROUND,), threshold=0.15),
)
_CLIP_DIY = SemanticProtocol(
    "clip-diy-coco-all",
    "CLIP-DIY's COCO rules on every image: instances, first wins, crowds too; truth at 448, absent classes are 0",
    _instances,
    absent="zero",
    truth_side=448,
    stretch=True,
)
_STUFF = SemanticProtocol(
    "coco-object", "COCO-Stuff's maps of val2017, things kept, stuff and unlabelled as background", _stuff("background")
)

PROTOCOLS: Mapping[str, SemanticProtocol] = {
    protocol.name: protocol
    for protocol in (
        _DEFAULT,
        replace(_VOC21, look=Look(336, words=VOC_SCENERY, threshold=0.2)),
        replace(
            _VOC21,
            name="voc20",
            about="VOC 2012 val, background not scored, VOC's own names",
            background="ignored",
            look=Look(336),
        ),
        replace(
            _VOC21,
            name="maskclip-voc20",
            about="MaskCLIP: VOC 2012 val, background not scored, names respelled",
            background="ignored",
            spellings=VOC_SPELLINGS["maskclip"],
        ),
        replace(_VOC21, name="zutis-voc", about="ZUTIS: VOC 2012, names respelled", spellings=VOC_SPELLINGS["zutis"]),
        replace(
            _CLIP_DIY,
            name="clip-diy-voc",
            about="CLIP-DIY: VOC 2012 val, names respelled, truth at 448, absent classes are 0",
            open=_voc,
            spellings=VOC_SPELLINGS["clip-diy"],
        ),
        replace(
            _CLIP_DIY,
            name="clip-diy-coco",
            about=_CLIP_DIY.about.replace("every image", "images with 1,000 px of things"),
            min_labelled=1000,
        ),
        _CLIP_DIY,
        replace(_STUFF, look=Look(336, words=COCO_SCENERY, threshold=0.25)),
        replace(_STUFF, name="tcl-coco-object", about=f"GroupViT's and TCL's COCO-Object: {_STUFF.about}"),
        replace(_STUFF, name="zutis-coco", about=f"ZUTIS: {_STUFF.about} (of unlabelled its authors do not say)"),
        replace(
            _STUFF,
            name="maskclip-coco",
            about=f"MaskCLIP as ZUTIS's baseline, 'background' asked for as a class: {_STUFF.about}",
            background="asked",
        ),
        replace(
            _STUFF,
            name="coco-object-void",
            about="COCO-Stuff's maps of val2017, things kept, stuff as background, unlabelled not scored",
            open=_stuff("void"),
        ),
        _CONTEXT60,
        replace(
            _CONTEXT60,
            name="context59",
            about="Pascal Context val, 59 names, background not scored",
            background="ignored",
            look=Look(336),
        ),
        SemanticProtocol(
            "coco-stuff", "COCO-Stuff's maps of val2017, 171 names, unlabelled not scored", _stuff_171, look=Look(336)
        ),
        SemanticProtocol("ade20k", "ADE20K validation, 150 names, index 0 not scored", _ade20k, look=Look(448)),
        SemanticProtocol("cityscapes", "Cityscapes val, the 19 names that are scored", _cityscapes, look=Look(448)),
        SemanticProtocol("coca", "CoCA: 80 classes and background, absent classes left out (ZUTIS)", _coca),
        SemanticProtocol(
            "imagenet-s-919", "ImageNet-S: mean over background and classes, also by size", _imagenet_s, absent="zero"
        ),
        SemanticProtocol("cub", "CUB-200-2011 test: background and 'bird', masks above 127", _cub("bird")),
        SemanticProtocol("cub-breeds", "CUB-200-2011 test: each image asked for by its breed, scored as bird", _cub("breed")),
    )
}
"""The protocols by name."""


def find_semantic_protocol(name: str) -> SemanticProtocol:
    """Return the protocol of a name; raises InputError with the nearest names for an unknown one."""
    if name not in PROTOCOLS:
        raise build_unknown_error("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]
