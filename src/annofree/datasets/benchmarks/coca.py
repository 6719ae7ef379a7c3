"""CoCA: 1,295 images in 80 groups, each with one class to find."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from annofree.datasets.benchmarks.semantic import (
    Labels,
    SemanticDataset,
    SemanticSample,
    read_binary,
    require_files,
    require_folder,
)
from annofree.datasets.names import BACKGROUND, COCA_NAMES
from annofree.errors import InputError

__all__ = ["open_coca"]

_LAYOUT = "CoCA/image/CLASS/NAME.jpg and CoCA/binary/CLASS/NAME.png; give CoCA"


def open_coca(folder: Path) -> SemanticDataset:
    """Open CoCA as label maps of 81 names: background, and the class of the image's folder where its mask is set.

    Raises InputError when files are missing or a folder is called like none of the classes.
    """
    images = sorted(require_folder(folder / "image", _LAYOUT).glob("*/*.jpg"))
    masks = [folder / "binary" / image.parent.name / f"{image.stem}.png" for image in images]
    require_files(images, _LAYOUT)
    require_files(masks, _LAYOUT)
    samples = tuple(
        SemanticSample(f"{image.parent.name}/{image.stem}", image, partial(_labels, mask, _number(image.parent.name)))
        for image, mask in zip(images, masks, strict=True)
    )
    names = (BACKGROUND, *COCA_NAMES)
    return SemanticDataset("CoCA", names, 0, samples, names)


def _number(folder: str) -> int:
    name = folder.replace("_", " ")
    if name not in COCA_NAMES:
        raise InputError(f"expected folders called like CoCA's classes, got {folder!r}; the layout is {_LAYOUT}")
    return COCA_NAMES.index(name) + 1


def _labels(mask: Path, number: int) -> Labels:
    return read_binary(mask, above=127).astype(np.int32) * number
