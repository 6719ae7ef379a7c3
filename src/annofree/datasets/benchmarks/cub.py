"""CUB-200-2011 as {background, bird}, asked for by that word or by the breed of each image."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from annofree.datasets.benchmarks.semantic import (
    Labels,
    SemanticDataset,
    SemanticSample,
    read_binary,
    read_lines,
    require_files,
    require_folder,
)
from annofree.datasets.names import BACKGROUND
from annofree.errors import InputError

__all__ = ["open_cub"]

_LAYOUT = (
    "CUB_200_2011/images/BREED/NAME.jpg, images.txt and train_test_split.txt beside images, and segmentations/BREED/NAME.png "
    "beside images or beside CUB_200_2011; give CUB_200_2011"
)


def open_cub(folder: Path, split: Literal["train", "test"] = "test", ask: Literal["bird", "breed"] = "bird") -> SemanticDataset:
    """Open a split of CUB, ``test`` (5,794 images) or ``train`` (5,994), as label maps of two names.

    A pixel is bird where its soft mask is above 127.  With ``ask`` "breed" each image is asked for by the name of its own
    folder.  Raises InputError when files are missing.
    """
    listed = _table(folder / "images.txt")
    training = _table(folder / "train_test_split.txt")
    names = [Path(name) for number, name in listed.items() if (training.get(number) == "1") == (split == "train")]
    images = [folder / "images" / name for name in names]
    masks = [_masks_folder(folder) / name.with_suffix(".png") for name in names]
    require_files(images, _LAYOUT)
    require_files(masks, _LAYOUT)
    samples = tuple(
        SemanticSample(name.with_suffix("").as_posix(), image, partial(_labels, mask), _asked(name) if ask == "breed" else None)
        for name, image, mask in zip(names, images, masks, strict=True)
    )
    return SemanticDataset(f"CUB-200-2011 {split}", (BACKGROUND, "bird"), 0, samples, (BACKGROUND, "bird"))


def _table(path: Path) -> dict[str, str]:
    pairs = [line.split(maxsplit=1) for line in read_lines(path, _LAYOUT)]
    if any(len(pair) != 2 for pair in pairs):
        raise InputError(f"expected a number and a value in each line of {path}; the layout is {_LAYOUT}")
    return {pair[0]: pair[1] for pair in pairs}


def _masks_folder(folder: Path) -> Path:
    inside = folder / "segmentations"
    return inside if inside.is_dir() else require_folder(folder.absolute().parent / "segmentations", _LAYOUT)


def _asked(name: Path) -> tuple[str, str]:
    """Name the breed as its folder does: 001.Black_footed_Albatross is "Black footed Albatross"."""
    return BACKGROUND, name.parent.name.partition(".")[2].replace("_", " ")


def _labels(mask: Path) -> Labels:
    return read_binary(mask, above=127).astype(np.int32)
