"""Pascal VOC 2012's instances, from its two maps a picture: one of objects, one of classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval import mask as coco_mask

from annofree.datasets.names import VOC_NAMES
from annofree.datasets.voc import voc
from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.formats.label_maps import read_indices

__all__ = ["voc_objects"]

_BORDER = 255  # of the map of objects


def voc_objects(folder: Path, split: str = "val") -> CocoFile:
    """Read the objects of a split as COCO instances, categories 1 to 20 in VOC's order, pictures by ``JPEGImages``' file names.

    An object is the pixels of its number in SegmentationObject, without its border, which is no one's; its class is what
    SegmentationClass says there.  Area counts pixels.  Papers that score instances of VOC mostly do not publish their truth,
    so a figure against this one is near theirs at best.

    Raises InputError when files are missing, and for maps that do not agree.
    """
    file = CocoFile.with_categories(dict(enumerate(VOC_NAMES, 1)))
    for sample in voc(folder, split):
        assert sample.image is not None  # noqa: S101 -- VOC has all pictures
        objects = read_indices(sample.image.parent.parent / "SegmentationObject" / f"{sample.id}.png")
        classes = sample.read()
        if objects.shape != classes.shape:
            raise InputError(f"expected two maps of one size for {sample.id}, got {objects.shape} and {classes.shape}")
        image_id = file.add_image(sample.image.name, (objects.shape[0], objects.shape[1]))
        numbers = np.unique(objects[(objects != 0) & (objects != _BORDER)])
        file.add_annotations([_row(image_id, objects == n, classes, f"{n} of {sample.id}") for n in numbers.tolist()])
    return file


def _row(image_id: int, mask: Any, classes: Any, what: str) -> dict[str, Any]:
    found = np.unique(classes[mask])
    if len(found) != 1 or found[0] < 1:
        raise InputError(f"expected one class of 1 to {len(VOC_NAMES)} in object {what}, got {found.tolist()}")
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "image_id": image_id,
        "category_id": int(found[0]),
        "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")},
        "bbox": coco_mask.toBbox(rle).tolist(),
        "area": int(mask.sum()),
        "iscrowd": 0,
    }
