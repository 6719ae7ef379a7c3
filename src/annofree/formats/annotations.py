"""What annotation formats hold in common: images, and in each the named things, as boxes and where known as masks.

A ``CocoFile`` is the hub that every reader gives and every writer takes; this is its content, laid out image by image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.ops.rle import RLE, compute_rle_area, compute_rle_box, encode_rle, to_json_rle
from annofree.structures.coco_rows import encode_segmentation

__all__ = [
    "AnnotatedImage",
    "AnnotatedImages",
    "Annotation",
    "build_coco_file",
    "build_not_listed_error",
    "list_images",
    "list_names",
    "name_image",
    "order_for_painting",
    "read_annotation",
]

Box = tuple[float, float, float, float]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Annotation:
    """One object: its class ``name``, ``box`` x0 y0 x1 y1 px end-exclusive, ``rle`` (counts as bytes, None without a mask).

    ``score`` is None in ground truth; ``crowd`` marks a crowd region (``iscrowd``); ``row`` is the annotation it
    was read from, if any.
    """

    name: str
    box: Box
    rle: RLE | None = None
    score: float | None = None
    crowd: bool = False
    row: Mapping[str, Any] | None = None

    @classmethod
    def of_mask(cls, name: str, mask: BoolArray, score: float | None = None, crowd: bool = False) -> Annotation:
        """Build from a mask (H, W), with its tight box."""
        rle = encode_rle(mask)
        return cls(name, compute_rle_box(rle), rle, score, crowd)


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """One image: ``file_name`` with forward slashes, ``size`` (H, W), its annotations, and the ``row`` it was read from.

    Raises InputError for a name that no file can have, such as ``..``.
    """

    file_name: str
    size: tuple[int, int]
    things: tuple[Annotation, ...] = ()
    row: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if "\0" in self.file_name or self.file_name.rstrip("/").rpartition("/")[2] in ("", ".", ".."):
            raise InputError(f"expected the name of an image, got {self.file_name!r:.60}")


@dataclass(frozen=True, eq=False)
class AnnotatedImages:
    """Annotated images, read one at a time on every iteration.

    ``categories`` as COCO has them; class names that only annotations have are not included.
    """

    categories: Sequence[Mapping[str, Any]]
    each: Callable[[], Iterable[AnnotatedImage]]
    info: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, file: CocoFile) -> AnnotatedImages:
        """Wrap a file in memory."""
        images = list_images(file)
        return cls(file.categories, lambda: images, file.info)

    @classmethod
    def named(cls, names: Iterable[str], each: Callable[[], Iterable[AnnotatedImage]]) -> AnnotatedImages:
        """Number categories from 1 in the order of ``names``."""
        return cls([{"id": k, "name": name} for k, name in enumerate(dict.fromkeys(names), 1)], each)

    def __iter__(self) -> Iterator[AnnotatedImage]:
        return iter(self.each())

    def map(self, change: Callable[[AnnotatedImage], AnnotatedImage]) -> AnnotatedImages:
        """The same with each image changed, when its turn comes."""
        return replace(self, each=lambda: map(change, self.each()))

    def gather(self) -> CocoFile:
        """Load all images into memory."""
        return build_coco_file(list_names(self), self)


def order_for_painting(things: Sequence[Annotation]) -> list[int]:
    """Return the painting order if a pixel can hold one object: lowest score first, then the larger first."""
    areas = [0 if t.rle is None else compute_rle_area(t.rle) for t in things]
    return sorted(range(len(things)), key=lambda i: (things[i].score or 0.0, -areas[i]))


def list_names(file: CocoFile | AnnotatedImages) -> tuple[str, ...]:
    """Return the category names in order; raises InputError when two categories share one."""
    names = tuple(str(category["name"]) for category in file.categories)
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise InputError(f"expected each category name once, got {', '.join(map(repr, doubled))} more than once; rename one")
    return names


def list_images(file: CocoFile) -> list[AnnotatedImage]:
    """Lay out a file image by image, in its order.

    Masks may be compressed or plain run lengths or polygons.  Raises InputError for annotations of no known image or
    category, and for masks of another size than their image.
    """
    names = {category["id"]: str(category["name"]) for category in file.categories}
    sizes = {image["id"]: (int(image["height"]), int(image["width"])) for image in file.images}
    files = {image["id"]: str(image["file_name"]) for image in file.images}
    things: dict[Any, list[Annotation]] = {id_: [] for id_ in sizes}
    for row in file.annotations:
        if row["image_id"] not in sizes:
            raise build_not_listed_error(row, "image")
        id_ = row["image_id"]
        with name_image(files[id_]):
            things[id_].append(read_annotation(row, names, sizes[id_]))
    return [AnnotatedImage(str(i["file_name"]), sizes[i["id"]], tuple(things[i["id"]]), i) for i in file.images]


@contextmanager
def name_image(name: str) -> Iterator[None]:
    """Say of which image it is that an annotation cannot be read."""
    try:
        yield
    except InputError as problem:
        raise InputError(f"image {name}: {problem}") from None


def build_not_listed_error(row: Mapping[str, Any], what: str) -> InputError:
    """Build the error for an annotation whose image or category is not in the file."""
    which = f"{what} {row[f'{what}_id']}"
    return InputError(f"annotation {row.get('id')} is of {which}, which the file does not list; add it or leave it out")


def read_annotation(row: Mapping[str, Any], names: Mapping[Any, str], size: tuple[int, int]) -> Annotation:
    """Read an annotation of an image of ``size`` (H, W); ``names`` are those of the categories by id."""
    if row["category_id"] not in names:
        raise build_not_listed_error(row, "category")
    rle = encode_segmentation(row.get("segmentation"), size)
    if row.get("bbox"):
        x, y, width, height = (float(v) for v in row["bbox"])
        box = (x, y, x + width, y + height)
    elif rle is not None:
        box = compute_rle_box(rle)
    else:
        raise InputError(f"expected a bbox or a segmentation in annotation {row.get('id')}, got neither")
    score = row.get("score")
    crowd = bool(row.get("iscrowd", 0))
    return Annotation(names[row["category_id"]], box, rle, None if score is None else float(score), crowd, row)


def build_coco_file(names: Iterable[str], images: Iterable[AnnotatedImage]) -> CocoFile:
    """Gather images in a file: categories are numbered from 1 as ``names`` has them, then as things bring new ones."""
    numbers = {name: k for k, name in enumerate(dict.fromkeys(names), 1)}
    file = CocoFile()
    for image in images:
        id_ = file.add_image(image.file_name, image.size)
        file.add_annotations([_row(t, id_, numbers.setdefault(t.name, len(numbers) + 1)) for t in image.things])
    file.categories = [{"id": k, "name": name} for name, k in numbers.items()]
    return file


def _row(thing: Annotation, image_id: int, category_id: int) -> dict[str, Any]:
    x0, y0, x1, y1 = thing.box
    mask: Any = [] if thing.rle is None else to_json_rle(thing.rle)
    area = (x1 - x0) * (y1 - y0) if thing.rle is None else compute_rle_area(thing.rle)
    row = {
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": mask,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": area,
        "iscrowd": int(thing.crowd),
    }
    return row if thing.score is None else row | {"score": thing.score}
