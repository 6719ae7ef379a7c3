"""COCO-Stuff: val2017 with 80 names of things and 91 of stuff, as label maps."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from annofree.datasets.benchmarks.semantic import SemanticDataset, SemanticSample, read_mapped, require_files, require_folder
from annofree.datasets.scene_names import COCO_STUFF_IDS, COCO_STUFF_NAMES

__all__ = ["open_coco_stuff_171"]

_LAYOUT = (
    "stuffthingmaps' val2017/ID.png as the truth, of COCO's ids less one, and the images, ID.jpg, as --images; the maps, "
    "stuffthingmaps_trainval2017.zip, and the images are at cocodataset.org"
)


def open_coco_stuff_171(truth: Path, images: Path | None = None) -> SemanticDataset:
    """Open COCO-Stuff's pixel maps of val2017 (5,000 images) with all 171 names; unlabeled pixels, 255, are void.

    Without ``images``, the folder of the images, predictions can be scored but no method run.  Raises InputError when files
    are missing.
    """
    maps = sorted(require_folder(truth, _LAYOUT).glob("*.png"))
    require_files(maps, _LAYOUT)
    paths = [None if images is None else images / f"{path.stem}.jpg" for path in maps]
    require_files([path for path in paths if path] if images else maps, _LAYOUT)
    read = partial(read_mapped, places=tuple(id_ - 1 for id_ in COCO_STUFF_IDS), void=(255,), layout=_LAYOUT)
    samples = tuple(SemanticSample(p.stem, image, partial(read, p)) for p, image in zip(maps, paths, strict=True))
    return SemanticDataset(f"COCO-Stuff {truth.name}", COCO_STUFF_NAMES, None, samples, COCO_STUFF_NAMES)
