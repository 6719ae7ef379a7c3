"""Pascal VOC 2012's instances, from its two maps an image: one of objects, one of classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from annofree.datasets.benchmarks.voc import open_voc
from annofree.datasets.names import VOC_NAMES
from annofree.errors import InputError
from annofree.formats.annotations import AnnotatedImage, Annotation, build_coco_file
from annofree.formats.coco import CocoFile
from annofree.formats.label_maps import read_indices

__all__ = ["read_voc_objects"]

_BORDER = 255  # of the map of objects


def read_voc_objects(folder: Path, split: str = "val") -> CocoFile:
    """Read the objects of a split as COCO instances, categories 1 to 20 in VOC's order, images by ``JPEGImages``' file names.

    An object is the pixels of its number in SegmentationObject, without its border, which is void; its class is taken from
    SegmentationClass.  Area counts pixels.  Papers that score instances of VOC mostly do not publish their ground truth,
    so results are only approximately comparable.

    Raises InputError when files are missing, and for maps that do not agree.
    """
    images = []
    for sample in open_voc(folder, split):
        assert sample.image is not None  # noqa: S101 -- VOC has all images
        objects = read_indices(sample.image.parent.parent / "SegmentationObject" / f"{sample.id}.png")
        classes = sample.read()
        if objects.shape != classes.shape:
            raise InputError(f"expected two maps of one size for {sample.id}, got {objects.shape} and {classes.shape}")
        numbers = np.unique(objects[(objects != 0) & (objects != _BORDER)])
        things = tuple(_thing(objects == n, classes, f"{n} of {sample.id}") for n in numbers.tolist())
        images.append(AnnotatedImage(sample.image.name, (objects.shape[0], objects.shape[1]), things))
    return build_coco_file(VOC_NAMES, images)


def _thing(mask: Any, classes: Any, what: str) -> Annotation:
    found = np.unique(classes[mask])
    if len(found) != 1 or found[0] < 1:
        raise InputError(f"expected one class of 1 to {len(VOC_NAMES)} in object {what}, got {found.tolist()}")
    return Annotation.of_mask(VOC_NAMES[int(found[0]) - 1], mask)
