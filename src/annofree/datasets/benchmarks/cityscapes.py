"""Cityscapes: streets, 19 names that are scored, as label maps."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from annofree.datasets.benchmarks.semantic import SemanticDataset, SemanticSample, read_mapped, require_files, require_folder
from annofree.datasets.scene_names import CITYSCAPES_IDS, CITYSCAPES_NAMES

__all__ = ["open_cityscapes"]

_LAYOUT = (
    "leftImg8bit/SPLIT/CITY/ID_leftImg8bit.png and gtFine/SPLIT/CITY/ID_gtFine_labelIds.png, SPLIT train or val; it is at "
    "www.cityscapes-dataset.com"
)
_TRUTH, _IMAGE = "_gtFine_labelIds", "_leftImg8bit"
_LAST = 33  # of the ids in the files; 255 is the id -1 of license plates


def open_cityscapes(folder: Path, split: str = "val") -> SemanticDataset:
    """Open a split: ``train`` (2,975 images) or ``val`` (500); ids that are not scored are void.

    Raises InputError when files are missing.
    """
    truth = require_folder(folder / "gtFine" / split, _LAYOUT)
    maps = sorted(truth.glob(f"*/*{_TRUTH}.png"))
    require_files(maps, _LAYOUT)
    ids = [path.stem.removesuffix(_TRUTH) for path in maps]
    images = [folder / "leftImg8bit" / split / p.parent.name / f"{id_}{_IMAGE}.png" for p, id_ in zip(maps, ids, strict=True)]
    require_files(images, _LAYOUT)
    void = tuple(id_ for id_ in (*range(_LAST + 1), 255) if id_ not in CITYSCAPES_IDS)
    read = partial(read_mapped, places=CITYSCAPES_IDS, void=void, layout=_LAYOUT)
    samples = tuple(SemanticSample(i, image, partial(read, p)) for i, image, p in zip(ids, images, maps, strict=True))
    return SemanticDataset(f"Cityscapes {split}", CITYSCAPES_NAMES, None, samples, CITYSCAPES_NAMES)
