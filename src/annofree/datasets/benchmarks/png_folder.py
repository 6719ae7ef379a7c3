"""Any folder of label maps: PNGs of indices, with classes.json, beside a folder of images."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from annofree.datasets.benchmarks.semantic import Labels, SemanticDataset, SemanticSample, require_folder
from annofree.errors import InputError
from annofree.formats.label_maps import ClassList, read_label_map
from annofree.io.image_files import SUFFIXES

__all__ = ["open_png_folder"]

_LAYOUT = "TRUTH/classes.json, TRUTH/NAME.png and IMAGES/NAME.jpg (or png, webp, ...), in folders alike"


def open_png_folder(truth: Path, images: Path | None = None) -> SemanticDataset:
    """Open a folder of label maps, at any depth, with the images of the same names in another folder.

    Without ``images`` only existing predictions can be scored.

    Raises InputError when there is no classes.json, no label map, or a label map without its image.
    """
    classes = ClassList.read(require_folder(truth, _LAYOUT))
    maps = sorted(path for path in truth.rglob("*.png") if path.is_file() and not path.name.startswith("."))
    if not maps:
        raise InputError(f"expected label maps in {truth}, found no PNG; the layout is {_LAYOUT}")
    ids = [path.relative_to(truth).with_suffix("").as_posix() for path in maps]
    pictures = _images(images, ids) if images else {}
    samples = tuple(
        SemanticSample(id_, pictures.get(id_), partial(_labels, path, classes)) for id_, path in zip(ids, maps, strict=True)
    )
    return SemanticDataset(f"label maps of {truth.name}", classes.names, classes.background, samples, classes.names)


def _images(folder: Path, ids: list[str]) -> dict[str, Path]:
    """Find the image of each label map; of several of one name the first in order, so jpg before png."""
    found: dict[str, Path] = {}
    for path in sorted(p for p in require_folder(folder, _LAYOUT).rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()):
        found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    alone = [id_ for id_ in ids if id_ not in found]
    if alone:
        raise InputError(
            f"expected an image in {folder} for each of {len(ids)} label maps, {len(alone)} have none, {alone[0]} among them; "
            f"the layout is {_LAYOUT}"
        )
    return found


def _labels(path: Path, classes: ClassList) -> Labels:
    return read_label_map(path, classes).labels
