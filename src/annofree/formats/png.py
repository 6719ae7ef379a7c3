"""Instances as index PNGs: one class per pixel, the highest score on top."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from glob import escape
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from annofree.errors import InputError
from annofree.formats.annotations import AnnotatedImage, AnnotatedImages, Annotation, list_names, order_for_painting
from annofree.formats.label_maps import CLASSES_FILE, ClassList, read_label_map, write_label_map
from annofree.formats.passed_over import PassedOver
from annofree.io.atomic import make_folder
from annofree.ops.rle import decode_rle
from annofree.structures import LabelMap

__all__ = ["paint_classes", "read_index_pngs", "stack_masks", "with_background", "write_index_pngs"]

LABELS = "labels"
_NO_PNG = (".bmp", ".gif", ".jpeg", ".jpg", ".npy", ".tif", ".tiff", ".webp")


def write_index_pngs(file: AnnotatedImages, out: Path) -> None:
    """Write ``labels/``: a palette PNG an image, 0 for background, and ``classes.json``."""
    names = with_background(list_names(file))
    ClassList.of(LabelMap(np.zeros((1, 1), np.int32), names, 0)).write(out / LABELS)
    for image in file:
        place = out / LABELS / PurePosixPath(image.file_name).with_suffix(".png")
        make_folder(place.parent)
        write_label_map(place, paint_classes(image, names))


def paint_classes(image: AnnotatedImage, names: tuple[str, ...]) -> LabelMap:
    """Paint an image's things as classes; ``names`` has the background first."""
    numbers = np.array([0, *(names.index(t.name, 1) for t in image.things)], np.int32)
    return LabelMap(numbers[stack_masks(image.things, image.size)], names, 0)


def stack_masks(things: Sequence[Annotation], size: tuple[int, int]) -> npt.NDArray[np.int32]:
    """Rasterize masks over each other, (H, W): 0 for none, k + 1 for the k-th annotation."""
    canvas = np.zeros(size, np.int32)
    for k in order_for_painting(things):
        rle = things[k].rle
        if rle is not None:
            canvas[decode_rle(rle)] = k + 1
    return canvas


def with_background(names: tuple[str, ...]) -> tuple[str, ...]:
    """Prepend a background whose name differs from all others.

    >>> with_background(("dog", "background"))
    ('_background', 'dog', 'background')
    """
    title = "background"
    while title in names:
        title = f"_{title}"
    return (title, *names)


def read_index_pngs(path: Path, images: Path | None = None, passed: PassedOver | None = None) -> AnnotatedImages:
    """Read a folder of index PNGs: each class but the background is one thing an image, for the pixels tell no more.

    Images are named as in ``images``, without it like the PNGs.  Raises InputError when there is no ``classes.json``.
    """
    folder = path / LABELS if (path / LABELS / CLASSES_FILE).is_file() else path
    classes = ClassList.read(folder)
    told = passed or PassedOver()
    places = sorted(place for place in folder.rglob("*") if place.suffix.lower() == ".png" and place.is_file())
    if not places:
        raise InputError(f"expected index PNGs in {folder}, and there are none")

    def each() -> Iterator[AnnotatedImage]:
        _note_others(folder, told)
        return (_image(place, _name(place.relative_to(folder), images), classes) for place in places)

    return AnnotatedImages.named((n for k, n in enumerate(classes.names) if k != classes.background), each)


def _note_others(folder: Path, passed: PassedOver) -> None:
    """Tell of images that are no PNGs, for they hold no indices."""
    for place in sorted(folder.rglob("*")):
        if place.suffix.lower() in _NO_PNG:
            passed.note(place, "", "no PNG, so no label map", "files")


def _name(png: Path, images: Path | None) -> str:
    """Name the image whose labels a PNG has: another ending, the same else."""
    there = sorted((images / png.parent).glob(f"{escape(png.stem)}.*")) if images else []
    return (png.parent / there[0].name if there else png).as_posix()


def _image(place: Path, name: str, classes: ClassList) -> AnnotatedImage:
    label_map = read_label_map(place, classes)
    there = sorted(set(np.unique(label_map.labels).tolist()) - {-1, classes.background})
    things = tuple(Annotation.of_mask(classes.names[k], label_map.labels == k) for k in there)
    return AnnotatedImage(name, label_map.size, things)
