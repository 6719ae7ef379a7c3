"""COCO's 80 classes as label maps with background, from either of two ground truths that papers confuse.

The instances' masks and COCO-Stuff's pixel maps do not agree pixel by pixel, so scores against one are not scores
against the other.  Any other file of COCO instances can be read as label maps too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from annofree.datasets.benchmarks.semantic import Labels, SemanticDataset, SemanticSample, require_files, require_folder
from annofree.datasets.names import BACKGROUND, COCO_IDS, COCO_NAMES
from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.formats.label_maps import read_indices
from annofree.ops.rle import compress_counts, decode_rle, fill_polygons
from annofree.structures import VOID

__all__ = ["label_instances", "open_coco_instances", "open_coco_stuff"]

Unlabeled = Literal["background", "void"]

_UNLABELLED = 255
_IMAGES = "a folder of the images that the file names, given as --images; COCO's are at cocodataset.org"
_STUFF = "stuffthingmaps' val2017/ID.png as the truth, and the images, ID.jpg, as --images; both are at cocodataset.org"


def open_coco_instances(truth: Path, images: Path | None = None) -> SemanticDataset:
    """Read a file of COCO instances as label maps: the categories in file order after the background, index 0.

    Where instances overlap the first in the file wins, and crowds count like the rest; uncovered pixels are background
    (CLIP-DIY's truth).  Without ``images``, the folder of its images, predictions can be scored but no method run.  Raises
    InputError for missing files and sizes.
    """
    file = CocoFile.read(truth)
    index = {row["id"]: k for k, row in enumerate(file.categories, 1)}
    rows: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for row in file.annotations:
        rows[row["image_id"]].append(row)
    paths = _images(images, [row["file_name"] for row in file.images], _IMAGES)
    samples = tuple(
        SemanticSample(_stem(row["file_name"]), path, partial(label_instances, rows[row["id"]], _size(row), index))
        for row, path in zip(file.images, paths, strict=True)
    )
    names = (BACKGROUND, *(row["name"] for row in file.categories))
    return SemanticDataset(f"instances of {truth.name}", names, 0, samples, names)


def _images(folder: Path | None, names: list[str], layout: str) -> Sequence[Path | None]:
    if folder is None:
        return [None] * len(names)
    paths = [folder / name for name in names]
    require_files(paths, layout)
    return paths


def _stem(file_name: str) -> str:
    return Path(file_name).with_suffix("").as_posix()


def _size(row: Mapping[str, Any]) -> tuple[int, int]:
    if not {"height", "width"} <= row.keys():
        raise InputError(f"expected height and width of every image in the truth; none for {row.get('file_name')}")
    return int(row["height"]), int(row["width"])


def label_instances(rows: Sequence[Mapping[str, Any]], size: tuple[int, int], index: Mapping[int, int]) -> Labels:
    """Draw the instances of one image of ``size`` (H, W), each as its category's ``index``, on a background of 0.

    The first instance wins.  Raises InputError for an instance without a mask or of an unknown category.
    """
    labels = np.zeros(size, np.int32)
    for row in reversed(rows):
        if row.get("category_id") not in index:
            raise InputError(f"expected category_id among the truth's categories, got {row.get('category_id')!r}")
        labels[_mask(row, size)] = index[row["category_id"]]
    return labels


def _mask(row: Mapping[str, Any], size: tuple[int, int]) -> Any:
    drawn = row.get("segmentation")
    if not drawn:
        raise InputError(f"expected a segmentation in every instance, none in one of image {row.get('image_id')}")
    try:
        rle = fill_polygons(drawn, size) if isinstance(drawn, list) else drawn
        rle = compress_counts(rle["counts"], rle["size"]) if isinstance(rle["counts"], list) else rle
        given, mask = tuple(rle["size"]), decode_rle(rle)
    except (KeyError, IndexError, TypeError, ValueError) as problem:
        raise InputError(f"expected polygons or run lengths in image {row.get('image_id')}: {problem}") from None
    if given != size:
        raise InputError(f"expected a mask of size {size}, got {given}, in image {row.get('image_id')}")
    return mask


def open_coco_stuff(truth: Path, images: Path | None = None, unlabeled: Unlabeled = "background") -> SemanticDataset:
    """Open COCO-Stuff's pixel maps of val2017 as COCO-Object: 81 names, stuff as background, index 0.

    The maps hold COCO's category id less one.  Unlabeled pixels, 255, are background as in GroupViT and TCL, or void.
    Without ``images``, the folder of the images, predictions can be scored but no method run.

    Raises InputError when files are missing.
    """
    maps = sorted(require_folder(truth, _STUFF).glob("*.png"))
    require_files(maps, _STUFF)
    paths = _images(images, [f"{path.stem}.jpg" for path in maps], _STUFF)
    samples = tuple(
        SemanticSample(path.stem, image, partial(_stuff_labels, path, unlabeled))
        for path, image in zip(maps, paths, strict=True)
    )
    names = (BACKGROUND, *COCO_NAMES)
    return SemanticDataset(f"COCO-Object, {truth.name}, pixel maps, unlabelled as {unlabeled}", names, 0, samples, names)


def _stuff_labels(path: Path, unlabeled: Unlabeled) -> Labels:
    indices = read_indices(path)
    if indices.max() > _UNLABELLED:
        raise InputError(f"expected values of at most 255 in {path}, got {indices.max()}; is it a stuffthingmaps file?")
    lookup = np.zeros(_UNLABELLED + 1, np.int32)
    lookup[np.array(COCO_IDS) - 1] = np.arange(1, len(COCO_IDS) + 1)
    lookup[_UNLABELLED] = VOID if unlabeled == "void" else 0
    return np.asarray(lookup[indices], np.int32)
