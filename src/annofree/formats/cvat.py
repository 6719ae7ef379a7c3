"""CVAT for images 1.1: one XML file, masks as row-major run lengths within their box, starting with background."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from annofree.errors import InputError
from annofree.formats.annotations import AnnotatedImage, AnnotatedImages, Annotation, list_names
from annofree.formats.passed_over import PassedOver
from annofree.formats.polygons import fill_to_rle
from annofree.io.atomic import write_json
from annofree.io.xml import add_element, stream_xml, write_xml_stream
from annofree.ops.palette import assign_colors, to_hex
from annofree.ops.rle import decode_rle

__all__ = ["IMAGES", "read_cvat", "write_cvat"]

IMAGES = "images"
_XML, _LABELS = "annotations.xml", "labels.json"
_NOT_SHAPES = ("tag",)

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

    Raises InputError for other shapes and for turned boxes, which have no mask, and for video XML.
    """
    place = path / _XML if path.is_dir() else path
    heads = (one for one in stream_xml(place, "annotations") if one.tag in ("meta", "image", "track"))
    meta = next(heads, ET.Element("meta"))
    names = [label.findtext("name") or "" for label in meta.iterfind(".//labels/label")]
    return AnnotatedImages.named(names, lambda: _images(place))


def _images(place: Path) -> Iterator[AnnotatedImage]:
    for one in stream_xml(place, "annotations"):
        if one.tag == "track":
            raise InputError(f"expected CVAT for images in {place}, got CVAT for video; export it as images")
        if one.tag == "image":
            yield _picture(one, place)


def _picture(image: ET.Element, place: Path) -> AnnotatedImage:
    size = (int(image.attrib["height"]), int(image.attrib["width"]))
    shapes = sorted((s for s in image if s.tag not in _NOT_SHAPES), key=lambda shape: int(shape.get("z_order", 0)))
    return AnnotatedImage(image.attrib["name"], size, tuple(_thing(shape, size, place) for shape in shapes))


def _thing(shape: ET.Element, size: tuple[int, int], place: Path) -> Annotation:
    at = shape.attrib
    if shape.tag == "mask":
        return Annotation.of_mask(at["label"], _pasted(at, size))
    if shape.tag == "box" and not float(at.get("rotation", 0)):
        x0, y0, x1, y1 = (float(at[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
        return Annotation(at["label"], (x0, y0, x1, y1))
    if shape.tag == "polygon":
        points: Sequence[list[float]] = [[float(v) for v in pair.split(",")] for pair in at["points"].split(";")]
        return Annotation.of_mask(at["label"], decode_rle(fill_to_rle([points], size)))
    raise InputError(f"expected masks, upright boxes and polygons in {place}, got <{shape.tag}>; redraw it")


def _pasted(at: dict[str, str], size: tuple[int, int]) -> BoolArray:
    left, top, width, height = (int(at[key]) for key in ("left", "top", "width", "height"))
    runs = [int(run) for run in at["rle"].split(",")]
    if sum(runs) != width * height:
        raise InputError(f"expected run lengths that add up to {width} x {height} pixels, got {sum(runs)}")
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    return mask
