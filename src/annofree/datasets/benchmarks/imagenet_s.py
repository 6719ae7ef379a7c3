"""ImageNet-S: ImageNet's images with a label map each, of 50, 300 or 919 classes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import PIL.Image

from annofree.datasets.benchmarks.semantic import Labels, SemanticDataset, SemanticSample, require_files, require_folder
from annofree.datasets.names import BACKGROUND
from annofree.errors import InputError, MissingError
from annofree.structures import VOID

__all__ = ["open_imagenet_s"]

_LAYOUT = (
    "ImageNetS919/validation/WNID/NAME.JPEG and ImageNetS919/validation-segmentation/WNID/NAME.png "
    "(train-semi likewise); give ImageNetS919. The truth of test is on the benchmark's server only"
)
_IGNORED = 1000


def open_imagenet_s(folder: Path, split: str = "validation", names: Mapping[str, str] | None = None) -> SemanticDataset:
    """Open a split with truth of ImageNet-S, ``validation`` or ``train-semi``: other as background 0, and a name a folder.

    A class's index is the rank of its WordNet id among the folders, from 1; a pixel's is red + 256 green, and 1000 is void.
    ``names`` are the prompts by WordNet id; default is the first word of WordNet that no other class uses.
    Papers use their own lists, and the choice affects scores.

    Raises InputError when files or names are missing, MissingError when the words cannot be found.
    """
    pictures = require_folder(folder / split, _LAYOUT)
    wnids = sorted(path.name for path in pictures.iterdir() if path.is_dir())
    images = [image for wnid in wnids for image in sorted((pictures / wnid).glob("*.JPEG"))]
    maps = [folder / f"{split}-segmentation" / image.parent.name / f"{image.stem}.png" for image in images]
    require_files(images, _LAYOUT)
    require_files(maps, _LAYOUT)
    words = _first_words(wnids) if names is None else _given(names, wnids)
    samples = tuple(
        SemanticSample(f"{image.parent.name}/{image.stem}", image, partial(_labels, path, len(wnids)))
        for image, path in zip(images, maps, strict=True)
    )
    all_names = (BACKGROUND, *words)
    return SemanticDataset(f"ImageNet-S {len(wnids)} {split}", all_names, 0, samples, all_names)


def _labels(path: Path, count: int) -> Labels:
    try:
        with PIL.Image.open(path) as image:
            rgb = np.asarray(image).astype(np.int32)
    except OSError as problem:
        raise InputError(f"expected a label map at {path}, but it cannot be read: {problem}") from None
    if rgb.ndim != 3:
        raise InputError(f"expected a label map in colour (red + 256 green) at {path}, got one of {rgb.ndim} dimensions")
    labels = rgb[..., 0] + 256 * rgb[..., 1]
    if labels[labels != _IGNORED].max(initial=0) > count:
        raise InputError(f"expected labels from 0 to {count}, or 1000, in {path}, got {labels.max()}; are all classes there?")
    return np.where(labels == _IGNORED, VOID, labels).astype(np.int32)


def _given(names: Mapping[str, str], wnids: list[str]) -> list[str]:
    missing = [wnid for wnid in wnids if wnid not in names]
    if missing:
        raise InputError(f"expected a name for each of {len(wnids)} WordNet ids, none for {missing[0]}")
    return [names[wnid] for wnid in wnids]


def _first_words(wnids: list[str]) -> list[str]:
    words = _wordnet()
    strange = [wnid for wnid in wnids if wnid not in words]
    if strange:
        raise InputError(f"expected folders called by WordNet ids, got {strange[0]!r}; the layout is {_LAYOUT}")
    chosen: dict[str, str] = {}
    for wnid in sorted(wnids, key=lambda w: len(words[w])):  # who has no second word chooses first
        taken = {BACKGROUND, *chosen.values()}
        chosen[wnid] = next((word for word in words[wnid] if word not in taken), f"{words[wnid][0]} ({wnid})")
    return [chosen[wnid] for wnid in wnids]


def _wordnet() -> dict[str, list[str]]:
    """WordNet's words for each id, in lower case, as the list that comes with timm has them."""
    package = find_spec("timm")
    folders = package.submodule_search_locations if package else None
    path = Path(folders[0]) / "data" / "_info" / "imagenet_synset_to_lemma.txt" if folders else None
    if path is None or not path.is_file():
        raise MissingError("expected timm's list of WordNet words, and it is not installed; pass names by WordNet id instead")
    rows = (line.split("\t", 1) for line in path.read_text(encoding="utf-8").splitlines())
    return {wnid: [word.strip().lower() for word in words.split(",")] for wnid, words in rows}
