"""LabelMe: a JSON file an image, beside it.

A mask in one piece without holes is a ``polygon`` of pixel centers, which can be edited and which LabelMe fills, line
included, to the exact mask.  Any other is a ``mask``: a base64 PNG of its box.  An object without a mask is
a ``rectangle``.  Scores are a key of their own, which LabelMe keeps; crowds have the flag ``iscrowd``.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from annofree.errors import InputError
from annofree.formats.annotations import AnnotatedImage, AnnotatedImages, Annotation, list_names
from annofree.formats.passed_over import PassedOver, Place
from annofree.formats.polygons import draw_polygon, inset_ring, paste_mask, trace_rings
from annofree.formats.values import MOST_PIXELS, find_image, read_image_size, read_list, read_numbers, read_size
from annofree.io.atomic import make_folder, write_atomic, write_json
from annofree.io.read_json import parse_json
from annofree.io.text import read_text
from annofree.ops.rle import decode_rle

__all__ = ["read_labelme", "write_labelme"]

BoolArray = npt.NDArray[np.bool_]

_VERSION = "5.5.0"  # the first digits tell LabelMe how to read the file
_LABELS = "labels.txt"
_OURS = ("fidelity.json",)  # what an export leaves beside the files
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

    Polygons and masks with equal label and ``group_id`` are one object, rectangles stay several.  Circles, lines and points,
    which have no mask, are refused.  A size that is missing is that of the image beside the file or below ``images``.
    """
    passed = passed or PassedOver()
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    places = [place for place in files if place.name not in _OURS and _is_labelme(place, passed)]
    if not places:
        passed.check()
        raise InputError(f"expected LabelMe's JSON files in {path}, and there are none")
    root = path if path.is_dir() else path.parent
    labels = root / _LABELS
    names = [line.strip() for line in read_text(labels).splitlines()] if labels.is_file() else []
    reading = partial(_read_all, places, root, images, passed)
    return AnnotatedImages.named((n for n in names if n), lambda: passed.check_after(reading()))


def _is_labelme(place: Path, passed: PassedOver) -> bool:
    try:
        data = parse_json(read_text(place), "shapes")
    except (ValueError, OSError, RecursionError) as problem:
        passed.refuse(place, "", f"not JSON: {' '.join(str(problem).split())}", "files")
        return False
    if isinstance(data, dict) and "shapes" in data:
        return True
    passed.note(place, "", "JSON that is not LabelMe's", "files")
    return False


def _read_all(places: Sequence[Path], root: Path, images: Path | None, passed: PassedOver) -> Iterator[AnnotatedImage]:
    seen: set[str] = set()
    for place in places:
        try:
            image = _image(parse_json(read_text(place), "shapes"), place, root, images, passed)
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as problem:
            passed.refuse(place, "", f"no {problem} in it" if isinstance(problem, KeyError) else str(problem), "files")
            continue
        if image.file_name in seen:
            passed.refuse(place, "", f"a second file for {image.file_name}", "files")
            continue
        seen.add(image.file_name)
        yield image


def _image(data: dict[str, Any], place: Path, root: Path, images: Path | None, passed: PassedOver) -> AnnotatedImage:
    folder = PurePosixPath(place.relative_to(root).parent.as_posix())
    name = str(folder / PurePosixPath(data["imagePath"].replace("\\", "/")).name)
    size = _find_size(data, name, place, images)
    groups: dict[Any, list[Annotation]] = {}
    for k, shape in enumerate(read_list(data["shapes"], "shapes")):
        thing = _thing(shape, size, passed, (place, f"shape {k + 1}"))
        if thing is not None:
            group = shape.get("group_id")
            alone = group is None or thing.rle is None
            groups.setdefault(("alone", k) if alone else (thing.name, json.dumps(group)), []).append(thing)
    return AnnotatedImage(name, size, tuple(_joined(things) for things in groups.values()))


def _find_size(data: dict[str, Any], name: str, place: Path, images: Path | None) -> tuple[int, int]:
    if data.get("imageHeight") is not None and data.get("imageWidth") is not None:
        return read_size(data["imageHeight"], data["imageWidth"], str(place))
    file = find_image(place.parent, PurePosixPath(name).name) or (find_image(images, name) if images else None)
    if file is None:
        raise ValueError(f"expected imageHeight and imageWidth, or the image {name} beside it, got neither")
    return read_image_size(file)


def _joined(things: Sequence[Annotation]) -> Annotation:
    first = things[0]
    if len(things) == 1:
        return first
    mask = np.any([decode_rle(thing.rle) for thing in things if thing.rle is not None], 0)
    return Annotation.of_mask(first.name, mask, first.score, first.crowd)


def _thing(shape: dict[str, Any], size: tuple[int, int], passed: PassedOver, where: Place) -> Annotation | None:
    try:
        if not isinstance(shape, dict):
            raise ValueError(f"expected a shape as an object, got {shape!r:.60}")
        return _draw(shape, size, passed, where)
    except KeyError as problem:
        passed.refuse(*where, f"a shape that has no {problem}")
    except (ValueError, TypeError, AttributeError, OSError, SyntaxError, PIL.Image.DecompressionBombError) as problem:
        passed.refuse(*where, " ".join(str(problem).split()))
    return None


def _draw(shape: dict[str, Any], size: tuple[int, int], passed: PassedOver, where: Place) -> Annotation:
    """The annotation of a shape; raises ValueError for one that has no mask and is no rectangle."""
    kind, label, score = shape.get("shape_type") or "polygon", str(shape["label"]).strip(), shape.get("score")
    crowd = bool((shape.get("flags") or {}).get("iscrowd"))
    points = np.reshape(read_numbers([v for x, y in shape["points"] for v in (x, y)], "points"), (-1, 2))
    if score is not None:
        (score,) = read_numbers([score], "a score")
    if kind == "rectangle" and _is_upright(points):
        (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
        return Annotation(label, (x0, y0, x1, y1), None, score, crowd)
    if kind == "polygon" and len(points) >= _FEWEST:
        return Annotation.of_mask(label, draw_polygon(points, size), score, crowd)
    if kind == "mask" and len(points):
        return Annotation.of_mask(label, _pasted(shape["mask"], points[0], size, passed, where), score, crowd)
    raise ValueError(f"a {kind} of {len(points)} points; expected polygons, masks and upright rectangles")


def _is_upright(points: npt.NDArray[np.float64]) -> bool:
    """Tell whether points are two opposite corners of an upright rectangle, or its four."""
    return len(points) == 2 or (len(points) == 4 and all(len(set(points[:, k].tolist())) <= 2 for k in (0, 1)))


def _pasted(png: str, corner: npt.NDArray[np.float64], size: tuple[int, int], passed: PassedOver, where: Place) -> BoolArray:
    with PIL.Image.open(io.BytesIO(base64.b64decode(png)), formats=("PNG",)) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"a mask of {image.width} x {image.height} pixels")
        part = np.asarray(image).astype(bool)
    x, y = (int(v) for v in corner)
    if x < 0 or y < 0 or x + part.shape[1] > size[1] or y + part.shape[0] > size[0]:
        passed.fix(*where, "a mask that lies partly outside of its image, cut there")
    return paste_mask(part, x, y, size)
