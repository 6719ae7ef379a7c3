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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]

from annofree.errors import InputError
from annofree.formats.annotations import AnnotatedImage, AnnotatedImages, Annotation, list_names
from annofree.formats.passed_over import PassedOver, Place
from annofree.formats.polygons import bridge_rings, fill_to_rle, trace_rings
from annofree.formats.values import order_box, read_image_size, read_numbers, read_size, tell_names_apart
from annofree.formats.yolo_places import Sources, note_labels_alone
from annofree.io.atomic import make_folder, write_atomic
from annofree.io.coco_stream import stream_list
from annofree.io.json_stream import write_list
from annofree.io.text import read_text
from annofree.ops.rle import compute_rle_box, decode_rle

__all__ = ["IMAGES", "read_yolo", "write_yolo_boxes", "write_yolo_masks"]

IMAGES, LABELS = "images/train", "labels/train"
_IMAGES = "pictures.json"
_BOX = 4  # numbers
_MOST_POINTS = 10_000
_FARTHEST = 4.0  # shares, beyond which numbers are rather pixels
_SHAPE = "class x y w h, or class x1 y1 x2 y2 x3 y3 ..., shares from 0 to 1"

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
    listed = "".join(f"\n  {k}: {json.dumps(name, ensure_ascii=False)}" for k, name in enumerate(names))
    about = "# There is no split: point val to other images before you trust a score.\n"
    return f"{about}train: {IMAGES}\nval: {IMAGES}\nnames:{listed or ' {}'}\n"


def read_yolo(path: Path, images: Path | None = None, passed: PassedOver | None = None) -> AnnotatedImages:
    """Read a detection, segmentation or pose dataset: its ``data.yaml`` or the folder with it.

    Sizes come from ``pictures.json``, else from the images, in ``images`` or where data.yaml says; a number after the last is
    the confidence, and of poses the boxes are read.  ``passed`` is told of label files that are not there, and of those without
    an image.  Raises InputError where no label file is found, and for lines that cannot be read.
    """
    place = path / "data.yaml" if path.is_dir() else path
    told = passed or PassedOver()
    data = _data(place)
    names = _names(data.get("names"), place, told)
    read_line = _LineReader(names, _pose_numbers(data.get("kpt_shape"), place), told)

    def each() -> Iterator[AnnotatedImage]:
        listed = (place.parent / _IMAGES).is_file()
        places = _listed(place.parent, told) if listed else _found(place, data, images, told)
        return (AnnotatedImage(name, size, tuple(read_line.read_things(labels, size))) for name, size, labels in places)

    return AnnotatedImages.named(names.values(), lambda: told.check_after(each()))


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]  # yaml is not typed
    """A safe loader that refuses aliases: a few lines of them stand for billions of names."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise InputError("expected YAML without aliases (*name); write out what they stand for")
        return super().compose_node(parent, index)


def _data(place: Path) -> dict[str, Any]:
    try:
        data = yaml.load(read_text(place), _PlainLoader)  # noqa: S506 -- a safe loader
    except OSError as problem:
        raise InputError(f"expected a YOLO data.yaml at {place}, but it cannot be read: {problem.strerror}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as problem:
        if isinstance(problem, InputError):
            raise InputError(f"{place}: {problem}") from None
        raise InputError(f"expected YAML in {place}, but it is not: {' '.join(str(problem).split())}") from None
    if not isinstance(data, dict):
        raise InputError(f"expected names and folders in {place}, got {type(data).__name__}")
    return data


def _names(given: Any, place: Path, passed: PassedOver) -> dict[int, str]:
    """Names by index; equal names of two classes are told apart by their index."""
    if isinstance(given, list):
        given = dict(enumerate(given))
    if isinstance(given, dict):
        given = {int(k) if isinstance(k, str) and k.strip().isdecimal() else k: name for k, name in given.items()}
    if not isinstance(given, dict) or not all(isinstance(k, int) for k in given):
        raise InputError(f"expected names as a list, or by index from 0, in {place}, got {str(given)[:60]}")
    stripped = [(k, str(given[k]).strip(), str(k)) for k in sorted(given)]
    return tell_names_apart(stripped, passed, (place, "names"))


def _pose_numbers(shape: Any, place: Path) -> int:
    """How many numbers the key points of a pose take, 0 where there are none."""
    if shape is None:
        return 0
    if not (isinstance(shape, list) and len(shape) == 2 and all(isinstance(n, int) and 0 < n < _MOST_POINTS for n in shape)):
        raise InputError(f"expected kpt_shape as [points, 2 or 3] in {place}, got {shape!r:.60}")
    return int(shape[0] * shape[1])


def _listed(folder: Path, passed: PassedOver) -> Iterator[tuple[str, tuple[int, int], Path]]:
    """What ``pictures.json`` lists: name, size and label file."""
    used: set[Path] = set()
    for row in stream_list(folder / _IMAGES):
        name = PurePosixPath(row["file_name"])
        if name.is_absolute() or ".." in name.parts:
            raise InputError(f"expected names of images below the data set in {folder / _IMAGES}, got {row['file_name']!r}")
        labels = folder / LABELS / name.with_suffix(".txt")
        used.add(labels)
        yield str(name), read_size(row["height"], row["width"], f"{folder / _IMAGES}, {name}"), labels
    note_labels_alone(used, passed)


def _found(
    place: Path, data: dict[str, Any], images: Path | None, passed: PassedOver
) -> Iterator[tuple[str, tuple[int, int], Path]]:
    """The images that data.yaml names, with their size and label file; raises InputError where no label file is there."""
    sources = Sources(place, data, images, passed)
    such: Path | None = None
    for name, image, labels in sources:
        such = such or labels
        yield name, read_image_size(image), labels
    note_labels_alone(sources.used, passed)
    if not sources.used:
        raise InputError(
            f"expected label files for the {sources.absent} images of {place}, and there are none, such as {such}; "
            "they stand where the last folder called images is called labels"
        )


@dataclass(frozen=True)
class _LineReader:
    """Reads lines of label files: ``names`` by index, and how many numbers a pose has after its box, 0 for none."""

    names: dict[int, str]
    pose: int
    passed: PassedOver

    def read_things(self, labels: Path, size: tuple[int, int]) -> Iterator[Annotation]:
        """What a label file says; one that is not there is told of."""
        try:
            text = read_text(labels)
        except FileNotFoundError:
            self.passed.note(labels, "", "no label file, so nothing is known to be in its image", "label files")
            return
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    yield self._thing(line, size, (labels, f"line {number}"))
                except (ValueError, KeyError, OverflowError):
                    self.passed.refuse(labels, f"line {number}", f"expected {_SHAPE}, got {line[:60]!r}")

    def _thing(self, line: str, size: tuple[int, int], place: Place) -> Annotation:
        index, *words = line.split()
        if float(index) != int(float(index)):
            raise ValueError(line)
        name = self.names[int(float(index))]
        shares, score = self._split(read_numbers(words, "shares"))
        if self.pose and len(shares) == _BOX + self.pose:
            del shares[_BOX:]
            self.passed.note(*place, "key points left out, the box is read", "sets of key points")
        if not shares or max(map(abs, shares)) > _FARTHEST:
            raise ValueError(line)
        if len(shares) == _BOX:
            x, y, w, h = (v * s for v, s in zip(shares, (size[1], size[0]) * 2, strict=True))
            box = order_box((x - w / 2, y - h / 2, x + w / 2, y + h / 2), self.passed, place)
            return Annotation(name, box, score=score)
        points = np.array(shares).reshape(-1, 2) * (size[1], size[0])
        if len(points) <= 2 or self.pose:
            raise ValueError(line)
        rle = fill_to_rle([points], size)
        return Annotation(name, compute_rle_box(rle), rle, score)

    def _split(self, numbers: list[float]) -> tuple[list[float], float | None]:
        """Numbers, and the confidence if there is one more than belong to an object: after a box, a pose or pairs of points."""
        confident = len(numbers) in (_BOX + 1, _BOX + self.pose + 1) if self.pose else len(numbers) % 2 == 1
        if not confident:
            return numbers, None
        *numbers, score = numbers
        if not 0 <= score <= 1:
            raise ValueError(f"expected a confidence from 0 to 1, got {score}")
        return numbers, score
