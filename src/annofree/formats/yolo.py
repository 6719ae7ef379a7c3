"""YOLO: ``data.yaml``, and a text file an image with one line an object, in shares of the image's width and height.

OUT
├── data.yaml        names by index, which folder to train on
├── pictures.json    file names and sizes, for the label files say neither (no part of YOLO)
├── images/train/    images, where they are copied or linked
└── labels/train/    a.txt for a.jpg, empty where nothing is in the image

A line is ``class x y w h`` for boxes (center and size) and ``class x1 y1 x2 y2 ...`` for masks, one polygon an object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import PIL.Image
import yaml  # type: ignore[import-untyped]

from annofree.errors import InputError
from annofree.formats.annotations import AnnotatedImage, AnnotatedImages, Annotation, list_names
from annofree.formats.passed_over import PassedOver
from annofree.formats.polygons import bridge_rings, fill_to_rle, trace_rings
from annofree.io.atomic import make_folder, write_atomic
from annofree.io.coco_stream import stream_list
from annofree.io.json_stream import write_list
from annofree.ops.rle import compute_rle_box, decode_rle

__all__ = ["IMAGES", "read_image_size", "read_yolo", "write_yolo_boxes", "write_yolo_masks"]

IMAGES, LABELS = "images/train", "labels/train"
_IMAGES = "pictures.json"
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_BOX = 4  # numbers
_ORIENTATION, _ON_ITS_SIDE = 0x0112, 5

Line = Callable[[Annotation, tuple[int, int]], Sequence[float] | None]


def write_yolo_masks(file: AnnotatedImages, out: Path) -> None:
    """Write a segmentation data set; parts and holes of an object are bridged to one polygon."""
    _write(file, out, _polygon)


def write_yolo_boxes(file: AnnotatedImages, out: Path) -> None:
    """Write a detection data set: boxes only."""
    _write(file, out, _centerd)


def _write(file: AnnotatedImages, out: Path, numbers: Line) -> None:
    names = list_names(file)
    write_list(out / _IMAGES, _written(file, names, out, numbers))
    _write_text(out / "data.yaml", _yaml(names))


def _written(file: AnnotatedImages, names: Sequence[str], out: Path, numbers: Line) -> Iterator[dict[str, Any]]:
    """Write the label files, and return their entries for ``pictures.json``."""
    for image in file:
        lines = [_line(names.index(t.name), numbers(t, image.size)) for t in image.things]
        text = "".join(line for line in lines if line)
        place = out / LABELS / PurePosixPath(image.file_name).with_suffix(".txt")
        make_folder(place.parent)
        _write_text(place, text)
        yield {"file_name": image.file_name, "height": image.size[0], "width": image.size[1]}


def _write_text(place: Path, text: str) -> None:
    write_atomic(place, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _line(index: int, numbers: Sequence[float] | None) -> str:
    if numbers is None:
        return ""
    return " ".join([str(index), *(f"{v:.8f}".rstrip("0").rstrip(".") for v in numbers)]) + "\n"


def _centerd(thing: Annotation, size: tuple[int, int]) -> Sequence[float]:
    x0, y0, x1, y1 = thing.box
    height, width = size
    return (x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height


def _polygon(thing: Annotation, size: tuple[int, int]) -> Sequence[float] | None:
    """The one polygon of a mask; a thing without a mask has that of its box, an empty mask none."""
    x0, y0, x1, y1 = thing.box
    points: Any = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    if thing.rle is not None:
        found = trace_rings(decode_rle(thing.rle))
        if not found:
            return None
        points = bridge_rings(found)
    shares = np.asarray(points, float) / (size[1], size[0])
    return list(shares.ravel().tolist())


def _yaml(names: Sequence[str]) -> str:
    """Write names as quoted strings, which JSON's are: no YAML takes "no", "1e3" or "null" for something else then."""
    listed = "".join(f"  {k}: {json.dumps(name, ensure_ascii=False)}\n" for k, name in enumerate(names))
    about = "# There is no split: point val to other pictures before you trust a score.\n"
    return f"{about}train: {IMAGES}\nval: {IMAGES}\nnames:\n{listed}"


def read_yolo(path: Path, images: Path | None = None, passed: PassedOver | None = None) -> AnnotatedImages:
    """Read a detection or segmentation dataset: its ``data.yaml`` or the folder with it.

    Sizes come from ``pictures.json``, else from the images, in ``images`` or where data.yaml says.  Raises InputError
    where there are neither, for indices that no name has, and for lines that are neither boxes nor polygons.
    """
    place = path / "data.yaml" if path.is_dir() else path
    data = _data(place)
    names = _names(data.get("names"), place)

    def each() -> Iterator[AnnotatedImage]:
        listed = (place.parent / _IMAGES).is_file()
        places = _listed(place.parent) if listed else _found(place.parent, data, images)
        return (AnnotatedImage(name, size, tuple(_things(labels, names, size))) for name, size, labels in places)

    return AnnotatedImages.named(names.values(), each)


def _data(place: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(place.read_text(encoding="utf-8"))
    except OSError as problem:
        raise InputError(f"expected a YOLO data.yaml at {place}, but it cannot be read: {problem.strerror}") from None
    except yaml.YAMLError as problem:
        raise InputError(f"expected YAML in {place}, but it is not: {' '.join(str(problem).split())}") from None
    if not isinstance(data, dict):
        raise InputError(f"expected names and folders in {place}, got {type(data).__name__}")
    return data


def _names(given: Any, place: Path) -> dict[int, str]:
    if isinstance(given, list):
        given = dict(enumerate(given))
    if not isinstance(given, dict) or not all(isinstance(k, int) for k in given):
        raise InputError(f"expected names as a list, or by index from 0, in {place}, got {str(given)[:60]}")
    return {k: str(given[k]) for k in sorted(given)}


def _listed(folder: Path) -> Iterator[tuple[str, tuple[int, int], Path]]:
    """What ``pictures.json`` lists: name, size and label file."""
    for row in stream_list(folder / _IMAGES):
        name = PurePosixPath(row["file_name"])
        yield str(name), (row["height"], row["width"]), folder / LABELS / name.with_suffix(".txt")


def _found(folder: Path, data: dict[str, Any], images: Path | None) -> Iterator[tuple[str, tuple[int, int], Path]]:
    """The images of the folders that data.yaml names, with images/ in place of labels/ for their label files."""
    base = folder / str(data.get("path") or "")
    splits = [data.get(split) for split in ("train", "val", "test")]
    folders = dict.fromkeys(
        str(place) for given in splits for place in (given if isinstance(given, list) else [given]) if place
    )
    if lists := [place for place in folders if place.endswith(".txt")]:
        raise InputError(f"expected folders of pictures in data.yaml, got the list {lists[0]}; name the folders")
    seen: set[Path] = set()
    for name in folders:
        root = images or base / name
        if not root.is_dir():
            raise InputError(f"expected pictures in {root}, which data.yaml names; give --image-root if they are elsewhere")
        for place in sorted(p for p in root.rglob("*") if p.suffix.lower() in _SUFFIXES and p not in seen):
            seen.add(place)
            inside = place.relative_to(root)
            labels = base / "labels".join(re.split(r"(?<![^/])images(?![^/])", name)) / inside.with_suffix(".txt")
            yield inside.as_posix(), read_image_size(place), labels


def read_image_size(place: Path) -> tuple[int, int]:
    """Return the size (H, W) of an image turned upright, from its head alone; raises InputError if it is none."""
    try:
        with PIL.Image.open(place) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) >= _ON_ITS_SIDE
    except Exception as problem:  # a broken file makes the parsers trip over anything
        raise InputError(f"expected a picture at {place}, but it cannot be read: {' '.join(str(problem).split())}") from None
    return (width, height) if turned else (height, width)


def _things(labels: Path, names: dict[int, str], size: tuple[int, int]) -> Iterator[Annotation]:
    """What a label file says; where there is none, nothing is in the image."""
    text = labels.read_text(encoding="utf-8") if labels.is_file() else ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield _thing(line, names, size)
            except (ValueError, KeyError):
                shape = "class x y w h, or class x1 y1 x2 y2 x3 y3 ..., shares from 0 to 1"
                raise InputError(f"expected {shape} in {labels}, line {number}, got {line[:60]!r}") from None


def _thing(line: str, names: dict[int, str], size: tuple[int, int]) -> Annotation:
    index, *words = line.split()
    name, shares = names[int(index)], [float(word) for word in words]
    if len(shares) == _BOX:
        x, y, w, h = (v * s for v, s in zip(shares, (size[1], size[0]) * 2, strict=True))
        return Annotation(name, (x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    points = np.array(shares).reshape(-1, 2) * (size[1], size[0])
    if len(points) <= 2 or not np.isfinite(points).all():
        raise ValueError(line)
    rle = fill_to_rle([points], size)
    return Annotation(name, compute_rle_box(rle), rle)
