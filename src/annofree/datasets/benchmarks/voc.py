"""Pascal VOC 2012 as label maps of 21 names."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from annofree.datasets.benchmarks.semantic import (
    Labels,
    SemanticDataset,
    SemanticSample,
    read_lines,
    require_files,
    require_folder,
)
from annofree.datasets.names import BACKGROUND, VOC_NAMES
from annofree.errors import InputError
from annofree.formats.label_maps import read_indices
from annofree.structures import VOID

__all__ = ["open_voc"]

_LAYOUT = (
    "VOC2012/JPEGImages/ID.jpg, VOC2012/SegmentationClass/ID.png and VOC2012/ImageSets/Segmentation/SPLIT.txt; "
    "give VOC2012, or VOCdevkit above it; it is at host.robots.ox.ac.uk/pascal/VOC"
)
_VOC_VOID = 255


def open_voc(folder: Path, split: str = "val") -> SemanticDataset:
    """Open a split of VOC 2012: ``train`` (1,464 images), ``val`` (1,449) or ``trainval`` (2,913).

    Index 0 is the background; the object borders, 255, are void.  Raises InputError when files are missing.
    """
    root = folder / "VOC2012" if (folder / "VOC2012").is_dir() else folder
    lists = require_folder(root / "ImageSets" / "Segmentation", _LAYOUT)
    ids = read_lines(lists / f"{split}.txt", _LAYOUT)
    images = [root / "JPEGImages" / f"{id_}.jpg" for id_ in ids]
    maps = [root / "SegmentationClass" / f"{id_}.png" for id_ in ids]
    require_files(images, _LAYOUT)
    require_files(maps, _LAYOUT)
    samples = tuple(SemanticSample(i, image, partial(_labels, path)) for i, image, path in zip(ids, images, maps, strict=True))
    names = (BACKGROUND, *VOC_NAMES)
    return SemanticDataset(f"VOC 2012 {split}", names, 0, samples, names)


def _labels(path: Path) -> Labels:
    indices = read_indices(path)
    if indices[indices != _VOC_VOID].max(initial=0) > len(VOC_NAMES):
        raise InputError(f"expected indices from 0 to {len(VOC_NAMES)}, or 255, in {path}; is it VOC's SegmentationClass?")
    return np.where(indices == _VOC_VOID, VOID, indices).astype(np.int32)
