"""Pascal Context: VOC 2010's validation images, 59 names of things and scenery, as label maps."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from annofree.datasets.benchmarks.semantic import (
    SemanticDataset,
    SemanticSample,
    read_lines,
    read_mapped,
    require_files,
    require_folder,
)
from annofree.datasets.names import BACKGROUND
from annofree.datasets.scene_names import CONTEXT_NAMES

__all__ = ["open_pascal_context"]

_LAYOUT = (
    "VOC2010/JPEGImages/ID.jpg, VOC2010/SegmentationClassContext/ID.png of indices 0 to 59 and "
    "VOC2010/ImageSets/SegmentationContext/SPLIT.txt; the images are at host.robots.ox.ac.uk/pascal/VOC, the names of pixels "
    "at cs.stanford.edu/~roozbeh/pascal-context"
)


def open_pascal_context(folder: Path, split: str = "val") -> SemanticDataset:
    """Open a split: ``train`` (4,996 images) or ``val`` (5,104 or 5,105); index 0 is what is none of the 59 names.

    Raises InputError when files are missing.
    """
    root = folder / "VOC2010" if (folder / "VOC2010").is_dir() else folder
    lists = require_folder(root / "ImageSets" / "SegmentationContext", _LAYOUT)
    ids = read_lines(lists / f"{split}.txt", _LAYOUT)
    images = [root / "JPEGImages" / f"{id_}.jpg" for id_ in ids]
    maps = [root / "SegmentationClassContext" / f"{id_}.png" for id_ in ids]
    require_files(images, _LAYOUT)
    require_files(maps, _LAYOUT)
    names = (BACKGROUND, *CONTEXT_NAMES)
    read = partial(read_mapped, places=tuple(range(len(names))), void=(255,), layout=_LAYOUT)
    samples = tuple(SemanticSample(i, image, partial(read, path)) for i, image, path in zip(ids, images, maps, strict=True))
    return SemanticDataset(f"Pascal Context {split}", names, 0, samples, names)
