"""LabelMe: a JSON file an image, beside it.

A mask in one piece without holes is a ``polygon`` of pixel centers, which can be edited and which LabelMe fills, line
included, to the exact mask.  Any other is a ``mask``: a base64 PNG of its box.  An object without a mask is
a ``rectangle``.  Scores are a key of their own, which LabelMe keeps; crowds have the flag ``iscrowd``.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from annofree.errors import InputError
from annofree.formats.annotations import AnnotatedImage, AnnotatedImages, Annotation, list_names
from annofree.formats.passed_over import PassedOver
from annofree.formats.polygons import draw_polygon, inset_ring, trace_rings
from annofree.io.atomic import make_folder, write_atomic, write_json
from annofree.ops.rle import decode_rle

__all__ = ["read_labelme", "write_labelme"]

BoolArray = npt.NDArray[np.bool_]

_VERSION = "5.5.0"  # the first digits tell LabelMe how to read the file
_LABELS = "labels.txt"
_FEWEST = 3  # corners


def write_labelme(file: AnnotatedImages, out: Path) -> None:
    """Write a JSON file an image, and ``labels.txt`` with the names, one a line."""
    names = list_names(file)
    for image in file:
        name = PurePosixPath(image.file_name)
        place = out / name.with_suffix(".json")
        make_folder(place.parent)
        about: dict[str, Any] = {
            "version": _VERSION,
            "flags": {},
            "shapes": [shape for thing in image.things if (shape := _shape(thing))],
            "imagePath": name.name,
            "imageData": None,
            "imageHeight": image.size[0],
            "imageWidth": image.size[1],
        }
        write_json(place, about, indent=1)
    text = "".join(f"{name}\n" for name in names)
    write_atomic(out / _LABELS, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _shape(thing: Annotation) -> dict[str, Any] | None:
    mask = None if thing.rle is None else decode_rle(thing.rle)
    if mask is not None and not mask.any():
        return None  # there is no shape of no pixel
    shape: dict[str, Any] = {
        "label": thing.name,
        "group_id": None,
        "description": "",
        "flags": {"iscrowd": True} if thing.crowd else {},
        **_outline(mask, thing.box),
    }
    return shape if thing.score is None else shape | {"score": thing.score}


def _outline(mask: BoolArray | None, box: Sequence[float]) -> dict[str, Any]:
    if mask is None:
        return {"points": [list(box[:2]), list(box[2:])], "shape_type": "rectangle", "mask": None}
    found = trace_rings(mask)
    if len(found) == 1:
        points = inset_ring(found[0])
        if np.array_equal(draw_polygon(points, (mask.shape[0], mask.shape[1])), mask):
            return {"points": points.astype(float).tolist(), "shape_type": "polygon", "mask": None}
    low, high = _corners(mask)
    part = mask[low[1] : high[1] + 1, low[0] : high[0] + 1]
    return {"points": [[float(v) for v in corner] for corner in (low, high)], "shape_type": "mask", "mask": _png(part)}


def _corners(mask: BoolArray) -> tuple[tuple[int, int], tuple[int, int]]:
    """The first and the last pixel, x y, of the box of a mask."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (int(xs[0]), int(ys[0])), (int(xs[-1]), int(ys[-1]))


def _png(mask: BoolArray) -> str:
    buffer = io.BytesIO()
    PIL.Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def read_labelme(path: Path, images: Path | None = None, passed: PassedOver | None = None) -> AnnotatedImages:
    """Read the JSON files of a folder: polygons, masks and rectangles.

    Polygons and masks with equal label and ``group_id`` are one object.  Raises InputError for circles, lines and points, which
    have no mask.
    """
    places = [place for place in sorted(path.rglob("*.json")) if (data := _data(place)) and "shapes" in data]
    if not places:
        raise InputError(f"expected LabelMe's JSON files in {path}, and there are none")
    labels = path / _LABELS
    names = labels.read_text(encoding="utf-8").splitlines() if labels.is_file() else []
    return AnnotatedImages.named((n for n in names if n), lambda: (_image(place, path) for place in places))


def _data(place: Path) -> Any:
    try:
        data = json.loads(place.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise InputError(f"expected LabelMe's JSON in {place}, but it is not JSON: {problem}") from None
    return data if isinstance(data, dict) else None


def _image(place: Path, root: Path) -> AnnotatedImage:
    data = _data(place)
    size = (int(data["imageHeight"]), int(data["imageWidth"]))
    groups: dict[Any, list[Annotation]] = {}
    for k, shape in enumerate(data["shapes"]):
        group = shape.get("group_id")
        groups.setdefault(("alone", k) if group is None else (shape["label"], group), []).append(_thing(shape, size, place))
    name = PurePosixPath(place.relative_to(root).parent.as_posix()) / PurePosixPath(data["imagePath"].replace("\\", "/")).name
    return AnnotatedImage(str(name), size, tuple(_joined(things) for things in groups.values()))


def _joined(things: Sequence[Annotation]) -> Annotation:
    first = things[0]
    masks = [decode_rle(t.rle) for t in things if t.rle is not None]
    return (
        first if len(things) == 1 or not masks else Annotation.of_mask(first.name, np.any(masks, 0), first.score, first.crowd)
    )


def _thing(shape: dict[str, Any], size: tuple[int, int], place: Path) -> Annotation:
    kind, label, score = shape["shape_type"], shape["label"], shape.get("score")
    crowd = bool((shape.get("flags") or {}).get("iscrowd"))
    points = np.asarray(shape["points"], float)
    if kind == "rectangle":
        (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
        return Annotation(label, (x0, y0, x1, y1), None, score, crowd)
    if kind == "polygon" and len(points) >= _FEWEST:
        return Annotation.of_mask(label, draw_polygon(points, size), score, crowd)
    if kind == "mask":
        return Annotation.of_mask(label, _pasted(shape["mask"], points[0], size), score, crowd)
    raise InputError(f"expected polygons, masks and rectangles in {place}, got a {kind} of {len(points)} points; redraw it")


def _pasted(png: str, corner: npt.NDArray[np.float64], size: tuple[int, int]) -> BoolArray:
    with PIL.Image.open(io.BytesIO(base64.b64decode(png)), formats=("PNG",)) as image:
        part = np.asarray(image).astype(bool)
    mask = np.zeros(size, bool)
    x, y = (int(v) for v in corner)
    space = mask[y : y + part.shape[0], x : x + part.shape[1]]
    space[:] = part[: space.shape[0], : space.shape[1]]
    return mask
