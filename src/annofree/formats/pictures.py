"""What annotation formats hold in common: pictures, and in each the named things, as boxes and where known as masks.

A ``CocoFile`` is the hub that every reader gives and every writer takes; this is its content, laid out picture by picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval import mask as coco_mask

from annofree.errors import InputError
from annofree.formats.coco import CocoFile

__all__ = ["Picture", "Thing", "box_of", "file_of", "mask_of", "names_of", "painted_order", "pictures_of", "rle_of"]

RLE = dict[str, Any]
Box = tuple[float, float, float, float]
BoolArray = npt.NDArray[np.bool_]

_FEWEST_NUMBERS = 6  # of a polygon; four would be taken for a box


@dataclass(frozen=True, eq=False)
class Thing:
    """One object: its class ``name``, ``box`` x0 y0 x1 y1 px end-exclusive, ``rle`` (counts as bytes, None without a mask).

    ``score`` is None in ground truth; ``crowd`` marks a region of many that is not scored.
    """

    name: str
    box: Box
    rle: RLE | None = None
    score: float | None = None
    crowd: bool = False

    @classmethod
    def of_mask(cls, name: str, mask: BoolArray, score: float | None = None, crowd: bool = False) -> Thing:
        """Build from a mask (H, W), with its tight box."""
        rle = rle_of(mask)
        return cls(name, box_of(rle), rle, score, crowd)


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture: ``file_name`` with forward slashes, ``size`` (H, W), and the ``things`` in it."""

    file_name: str
    size: tuple[int, int]
    things: tuple[Thing, ...] = ()


def rle_of(mask: BoolArray) -> RLE:
    """Encode a mask (H, W) in COCO's compressed run lengths, counts as bytes."""
    encoded: RLE = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return encoded


def mask_of(rle: RLE) -> BoolArray:
    """Decode compressed run lengths to a mask (H, W)."""
    return np.asarray(coco_mask.decode([rle])[..., 0], bool)


def box_of(rle: RLE) -> Box:
    """Return the tight box of a mask, x0 y0 x1 y1 px end-exclusive; zeros for an empty one."""
    x, y, width, height = coco_mask.toBbox([rle])[0].tolist()
    return x, y, x + width, y + height


def painted_order(things: Sequence[Thing]) -> list[int]:
    """Return the order to paint things in where a pixel can hold one: weakest first, the larger of equals first."""
    areas = [0 if t.rle is None else int(coco_mask.area([t.rle])[0]) for t in things]
    return sorted(range(len(things)), key=lambda i: (things[i].score or 0.0, -areas[i]))


def names_of(file: CocoFile) -> tuple[str, ...]:
    """Return the category names in order; raises InputError when two categories share one."""
    names = tuple(str(category["name"]) for category in file.categories)
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise InputError(f"expected each category name once, got {', '.join(map(repr, doubled))} more than once; rename one")
    return names


def pictures_of(file: CocoFile) -> list[Picture]:
    """Lay out a file picture by picture, in its order.

    Masks may be compressed or plain run lengths or polygons.  Raises InputError for annotations of no known picture or
    category, and for masks of another size than their picture.
    """
    names = {category["id"]: str(category["name"]) for category in file.categories}
    sizes = {image["id"]: (int(image["height"]), int(image["width"])) for image in file.images}
    things: dict[Any, list[Thing]] = {id_: [] for id_ in sizes}
    for row in file.annotations:
        image, category = row["image_id"], row["category_id"]
        if image not in sizes or category not in names:
            what = f"image {image}" if image not in sizes else f"category {category}"
            raise InputError(f"annotation {row.get('id')} is of {what}, which the file does not list; add it or leave it out")
        things[image].append(_thing(row, names[category], sizes[image]))
    return [Picture(str(i["file_name"]), sizes[i["id"]], tuple(things[i["id"]])) for i in file.images]


def _thing(row: Mapping[str, Any], name: str, size: tuple[int, int]) -> Thing:
    rle = _rle_of_row(row, size)
    if row.get("bbox"):
        x, y, width, height = (float(v) for v in row["bbox"])
        box = (x, y, x + width, y + height)
    elif rle is not None:
        box = box_of(rle)
    else:
        raise InputError(f"expected a bbox or a segmentation in annotation {row.get('id')}, got neither")
    score = row.get("score")
    return Thing(name, box, rle, None if score is None else float(score), bool(row.get("iscrowd", 0)))


def _rle_of_row(row: Mapping[str, Any], size: tuple[int, int]) -> RLE | None:
    """The mask of an annotation, None where it has none."""
    given, (height, width) = row.get("segmentation"), size
    if isinstance(given, list):
        polygons = [p for p in given if len(p) >= _FEWEST_NUMBERS]
        merged: RLE | None = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)) if polygons else None
        return merged
    if not isinstance(given, dict):
        return None
    if tuple(given["size"]) != size:
        raise InputError(f"expected masks of the size (H, W) {size} of their picture, got {tuple(given['size'])}")
    return _compressed(given["counts"], size)


def _compressed(counts: Any, size: tuple[int, int]) -> RLE:
    if isinstance(counts, list):
        if sum(counts) != size[0] * size[1]:
            raise InputError(f"expected run lengths that add up to {size[0]} x {size[1]} pixels, got {sum(counts)}")
        rle: RLE = coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)
        return rle
    return {"size": list(size), "counts": counts.encode("ascii") if isinstance(counts, str) else counts}


def file_of(names: Iterable[str], pictures: Iterable[Picture]) -> CocoFile:
    """Gather pictures in a file: categories are numbered from 1 as ``names`` has them, then as things bring new ones."""
    numbers = {name: k for k, name in enumerate(dict.fromkeys(names), 1)}
    file = CocoFile()
    for picture in pictures:
        id_ = file.add_image(picture.file_name, picture.size)
        file.add_annotations([_row(t, id_, numbers.setdefault(t.name, len(numbers) + 1)) for t in picture.things])
    file.categories = [{"id": k, "name": name} for name, k in numbers.items()]
    return file


def _row(thing: Thing, image_id: int, category_id: int) -> dict[str, Any]:
    x0, y0, x1, y1 = thing.box
    mask: Any = [] if thing.rle is None else {"size": thing.rle["size"], "counts": thing.rle["counts"].decode("ascii")}
    area = (x1 - x0) * (y1 - y0) if thing.rle is None else int(coco_mask.area([thing.rle])[0])
    row = {
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": mask,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": area,
        "iscrowd": int(thing.crowd),
    }
    return row if thing.score is None else row | {"score": thing.score}
