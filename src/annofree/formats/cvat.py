"""CVAT for images 1.1: one XML file, masks as row-major run lengths within their box, starting with background."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from annofree.errors import InputError
from annofree.formats.annotations import AnnotatedImage, AnnotatedImages, Annotation, list_names
from annofree.formats.passed_over import PassedOver, Place
from annofree.formats.polygons import fill_to_rle, paste_mask
from annofree.formats.values import MOST_PIXELS, order_box, read_numbers, read_size
from annofree.io.atomic import write_json
from annofree.io.xml import add_element, stream_xml, write_xml_stream
from annofree.ops.palette import assign_colors, to_hex
from annofree.ops.rle import decode_rle

__all__ = ["IMAGES", "read_cvat", "write_cvat"]

IMAGES = "images"
_XML, _LABELS = "annotations.xml", "labels.json"
_NOT_SHAPES = ("tag",)
_FEWEST = 3  # corners

BoolArray = npt.NDArray[np.bool_]


def write_cvat(file: AnnotatedImages, out: Path) -> None:
    """Write ``annotations.xml``, and ``labels.json`` for the raw view of a new task's labels."""
    names = list_names(file)
    colors = {name: to_hex(color) for name, color in assign_colors(names).items()}
    root = ET.Element("annotations")
    add_element(root, "version", "1.1")
    task = add_element(add_element(root, "meta"), "task")
    for tag, value in (("name", "annofree"), ("size", sum(1 for _ in file)), ("mode", "annotation")):
        add_element(task, tag, value)
    labels = add_element(task, "labels")
    for name, color in colors.items():
        label = add_element(labels, "label")
        for tag, text in (("name", name), ("color", color), ("type", "any"), ("attributes", "")):
            add_element(label, tag, text)
    write_xml_stream(out / _XML, root, (_image(number, image) for number, image in enumerate(file)))
    write_json(out / _LABELS, [{"name": n, "color": c, "attributes": []} for n, c in colors.items()], indent=1)


def _image(number: int, picture: AnnotatedImage) -> ET.Element:
    height, width = picture.size
    image = add_element(ET.Element("annotations"), "image", id=number, name=picture.file_name, width=width, height=height)
    for z, thing in enumerate(picture.things):
        common = {"label": thing.name, "source": "auto", "occluded": 0}
        if thing.rle is None:
            corners = (f"{v:.2f}" for v in thing.box)
            add_element(image, "box", **common, **dict(zip(("xtl", "ytl", "xbr", "ybr"), corners, strict=True)), z_order=z)
        elif (mask := decode_rle(thing.rle)).any():
            add_element(image, "mask", **common, **_boxed(mask), z_order=z)
    return image


def _boxed(mask: BoolArray) -> dict[str, object]:
    """The attributes of a mask: its box, and its run lengths in it."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    part = mask[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    changes = np.flatnonzero(np.diff(part.ravel(), prepend=False))
    runs = np.diff(changes, prepend=0, append=part.size)
    rle = ", ".join(map(str, runs.tolist()))
    return {"rle": rle, "left": xs[0], "top": ys[0], "width": part.shape[1], "height": part.shape[0]}


def read_cvat(path: Path, images: Path | None = None, passed: PassedOver | None = None) -> AnnotatedImages:
    """Read CVAT for images: masks, boxes and polygons, names as its labels order them.

    Other shapes and turned boxes, which have no mask, are refused.  Raises InputError for video XML.
    """
    passed = passed or PassedOver()
    place = path / _XML if path.is_dir() else path
    heads = (one for one in stream_xml(place, "annotations") if one.tag in ("meta", "image", "track"))
    meta = next(heads, ET.Element("meta"))
    names = [(label.findtext("name") or "").strip() for label in meta.iterfind(".//labels/label")]
    return AnnotatedImages.named(names, lambda: passed.check_after(_images(place, passed)))


def _images(place: Path, passed: PassedOver) -> Iterator[AnnotatedImage]:
    seen: set[str] = set()
    for number, one in enumerate(stream_xml(place, "annotations"), 1):
        if one.tag == "track":
            raise InputError(f"expected CVAT for images in {place}, got CVAT for video; export it as images")
        if one.tag == "image" and (picture := _picture(one, f"image {one.get('name', number)}", place, seen, passed)):
            yield picture


def _picture(image: ET.Element, where: str, place: Path, seen: set[str], passed: PassedOver) -> AnnotatedImage | None:
    """The image of an element, None where that has no name or size, or the name of an earlier one, which is told."""
    shapes = [shape for shape in image if shape.tag not in _NOT_SHAPES]
    try:
        name, size = image.attrib["name"], read_size(image.get("height"), image.get("width"), f"{place}, {where}")
        order = [int(shape.get("z_order", 0)) for shape in shapes]
    except (ValueError, KeyError) as problem:
        passed.refuse(place, where, f"an image that cannot be read: {problem}", "images")
        return None
    if name in seen:
        passed.refuse(place, where, "a second image of this name", "images")
        return None
    seen.add(name)
    ranked = sorted(zip(order, range(1, len(shapes) + 1), shapes, strict=True), key=lambda one: one[0])
    things = (_thing(shape, size, passed, (place, f"{where}, shape {number}")) for _, number, shape in ranked)
    return AnnotatedImage(name, size, tuple(thing for thing in things if thing is not None))


def _thing(shape: ET.Element, size: tuple[int, int], passed: PassedOver, where: Place) -> Annotation | None:
    try:
        return _draw(shape, size, passed, where)
    except KeyError as problem:
        passed.refuse(*where, f"<{shape.tag}> has no {problem}")
    except ValueError as problem:
        passed.refuse(*where, str(problem))
    return None


def _draw(shape: ET.Element, size: tuple[int, int], passed: PassedOver, where: Place) -> Annotation | None:
    """The annotation of a shape, None where it has no area; raises ValueError for one that has no mask and no box."""
    at, name = shape.attrib, shape.attrib["label"].strip()
    turned = read_numbers([at.get("rotation", 0)], "a rotation") != [0.0]
    if shape.tag == "mask":
        return Annotation.of_mask(name, _pasted(at, size, passed, where))
    if shape.tag == "box" and not turned:
        return Annotation(name, order_box((at[key] for key in ("xtl", "ytl", "xbr", "ybr")), passed, where))
    if shape.tag == "polygon":
        pairs = [pair.split(",") for pair in at["points"].split(";")]
        points = np.reshape(read_numbers([v for x, y in pairs for v in (x, y)], "points"), (-1, 2))
        if len(points) < _FEWEST:
            passed.note(*where, f"a <polygon> of {len(points)} points, which has no area")
            return None
        return Annotation.of_mask(name, decode_rle(fill_to_rle([points], size)))
    raise ValueError(f"a {'turned ' * turned}<{shape.tag}>; expected masks, upright boxes and polygons")


def _pasted(at: dict[str, str], size: tuple[int, int], passed: PassedOver, where: Place) -> BoolArray:
    left, top, width, height = (int(at[key]) for key in ("left", "top", "width", "height"))
    runs = np.array([int(run) for run in at["rle"].split(",")], object)
    if width * height > MOST_PIXELS or min(width, height, *runs) < 0 or runs.sum() != width * height:
        raise ValueError(f"expected run lengths that add up to {width} x {height} pixels, got {runs.sum()}")
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
        passed.fix(*where, "a mask that lies partly outside of its image, cut there")
    part = np.repeat(np.arange(len(runs)) % 2 == 1, runs.astype(np.int64)).reshape(height, width)
    return paste_mask(part, left, top, size)
