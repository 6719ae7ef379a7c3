"""Pascal VOC: an XML file an image with boxes, and PNGs of classes and of objects.

OUT
├── Annotations/a.xml            boxes, by pixels from 1, both ends included
├── SegmentationClass/a.png      classes by index, and classes.json that names them
├── SegmentationObject/a.png     the k-th object of the XML file is k; 0 is background, 255 void
├── ImageSets/Main/train.txt     the files' names without ending; in ImageSets/Segmentation too
└── JPEGImages/                  images, where they are copied or linked

VOC's xmin = x0 + 1 and xmax = x1 for our x0 and end-exclusive x1, rounded to whole pixels.  A pixel belongs to one object.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import PIL.Image

from annofree.errors import InputError
from annofree.formats.annotations import AnnotatedImage, AnnotatedImages, Annotation, list_names
from annofree.formats.label_maps import (
    CLASSES_FILE,
    VOID_COLOR,
    ClassList,
    read_indices,
    write_label_map,
)
from annofree.formats.passed_over import PassedOver, Place
from annofree.formats.png import paint_classes, stack_masks, with_background
from annofree.formats.values import find_image, order_box, read_image_size, read_size
from annofree.io.atomic import make_folder, write_atomic
from annofree.io.xml import add_element, read_xml, write_xml
from annofree.ops.rle import encode_rle
from annofree.structures import LabelMap

__all__ = ["IMAGES", "read_voc", "to_voc_box", "write_voc"]

IMAGES = "JPEGImages"
_XML, _CLASSES, _OBJECTS = "Annotations", "SegmentationClass", "SegmentationObject"
_VOID = 255
_CORNERS = ("bndbox/xmin", "bndbox/ymin", "bndbox/xmax", "bndbox/ymax")
_NO_SIZE = ("", "0", "-1")

Box = tuple[float, float, float, float]


def write_voc(file: AnnotatedImages, out: Path) -> None:
    """Write boxes, class and object PNGs; from the 255th object of an image on there are boxes only."""
    names = with_background(list_names(file))
    ClassList.of(LabelMap(np.zeros((1, 1), np.int32), names, 0)).write(out / _CLASSES, _voc_colors(len(names)))
    listed: list[str] = []
    for image in file:
        _write(image, names, out)
        listed.append(f"{PurePosixPath(image.file_name).with_suffix('')}\n")
    stems = "".join(listed)
    for kind in ("Main", "Segmentation"):
        make_folder(out / "ImageSets" / kind)
        write_atomic(out / "ImageSets" / kind / "train.txt", lambda temporary: temporary.write_text(stems, encoding="utf-8"))


def _write(picture: AnnotatedImage, names: tuple[str, ...], out: Path) -> None:
    places = [out / kind / PurePosixPath(picture.file_name) for kind in (_XML, _CLASSES, _OBJECTS)]
    for place in places:
        make_folder(place.parent)
    write_xml(places[0].with_suffix(".xml"), _xml(picture), declaration=False)
    write_label_map(places[1].with_suffix(".png"), paint_classes(picture, names), _voc_colors(len(names)))
    image = _object_png(stack_masks(picture.things, picture.size))
    write_atomic(places[2].with_suffix(".png"), lambda temporary: image.save(temporary, "PNG"))


def _object_png(objects: npt.NDArray[np.int32]) -> PIL.Image.Image:
    """A palette PNG of objects; those whose number is taken by void have no place in it."""
    image = PIL.Image.fromarray(np.where(objects < _VOID, objects, 0).astype(np.uint8))
    image.putpalette(np.concatenate([_voc_colors(_VOID), [VOID_COLOR]]).astype(np.uint8).tobytes())
    return image


def _voc_colors(count: int) -> npt.NDArray[np.uint8]:
    """The colors (count, 3) of VOC's PNGs: an index's bits dealt to red, green and blue, the lowest to the highest."""
    bits = (np.arange(count)[:, None] >> np.arange(24)) & 1
    worth = 1 << np.arange(7, -1, -1)
    return np.asarray(bits.reshape(-1, 8, 3).transpose(0, 2, 1) @ worth, np.uint8)


def _xml(image: AnnotatedImage) -> ET.Element:
    root = ET.Element("annotation")
    add_element(root, "folder", IMAGES)
    add_element(root, "filename", image.file_name)
    size = add_element(root, "size")
    for tag, number in (("width", image.size[1]), ("height", image.size[0]), ("depth", 3)):
        add_element(size, tag, number)
    add_element(root, "segmented", int(any(t.rle is not None for t in image.things)))
    for thing in image.things:
        one = add_element(root, "object")
        add_element(one, "name", thing.name)
        add_element(one, "pose", "Unspecified")
        add_element(one, "truncated", 0)
        add_element(one, "difficult", int(thing.crowd))
        box = add_element(one, "bndbox")
        for tag, number in zip(("xmin", "ymin", "xmax", "ymax"), to_voc_box(thing.box), strict=True):
            add_element(box, tag, number)
    return root


def to_voc_box(box: Sequence[float]) -> tuple[int, int, int, int]:
    """Turn x0 y0 x1 y1, end-exclusive, into VOC's pixels from 1, both ends included; at least one pixel each way.

    >>> to_voc_box([0, 0, 10, 4]), to_voc_box([2.6, 0, 2.8, 1])
    ((1, 1, 10, 4), (4, 1, 4, 1))
    """
    x0, y0, x1, y1 = (math.floor(v + 0.5) for v in box)
    return x0 + 1, y0 + 1, max(x1, x0 + 1), max(y1, y0 + 1)


def read_voc(path: Path, images: Path | None = None, passed: PassedOver | None = None) -> AnnotatedImages:
    """Read the XML files of a folder, with masks where there is an object PNG; ``difficult`` objects become crowds.

    Names are in the order of ``SegmentationClass/classes.json``, else as they come.  Sizes that the files lack are those of the
    images, in ``images`` or ``JPEGImages``.  Raises InputError for files and objects that cannot be read.
    """
    places = sorted(place for place in (path / _XML).rglob("*") if place.suffix.lower() == ".xml")
    if not places:
        raise InputError(f"expected VOC's XML files in {path / _XML}, and there are none")
    names: list[str] = []
    if (path / _CLASSES / CLASSES_FILE).is_file():
        classes = ClassList.read(path / _CLASSES)
        names = [name for k, name in enumerate(classes.names) if k != classes.background]
    told = passed or PassedOver()
    roots = [root for root in (images, path / IMAGES) if root is not None]
    return AnnotatedImages.named(names, lambda: told.check_after(_read_each(places, path, roots, told)))


def _read_each(places: Sequence[Path], path: Path, roots: Sequence[Path], passed: PassedOver) -> Iterator[AnnotatedImage]:
    """Images one by one; a second file of one image is refused, for both are objects of one image, or one name is wrong."""
    seen: dict[str, Path] = {}
    for place in places:
        image = _read(place, path, roots, passed)
        first = seen.setdefault(image.file_name, place)
        if first == place:
            yield image
        else:
            passed.refuse(place, "", f"a second file for {image.file_name}, after {first}", "files")


def _read(place: Path, path: Path, roots: Sequence[Path], passed: PassedOver) -> AnnotatedImage:
    tree = read_xml(place, "annotation")
    if len(tree.findall("filename")) > 1:
        raise InputError(f"expected one <filename> in {place}, and there are several; leave one")
    name = PurePosixPath(_text(tree, "filename", place).replace("\\", "/"))
    inside = PurePosixPath(place.relative_to(path / _XML).parent.as_posix())
    name = name if name.parent == inside else inside / name.name
    size = _size(tree, place, [found for root in roots if (found := find_image(root, str(name)))])
    objects = tree.findall("object")
    numbers = _object_numbers(path / _OBJECTS / place.relative_to(path / _XML).with_suffix(".png"), size, place)
    alone = 0 if numbers is None else int(np.unique(numbers[numbers > len(objects)]).size)
    if alone:
        passed.note(place, "", f"{alone} regions of its object PNG that are no <object>", count=alone)
    things = []
    for k, one in enumerate(objects, 1):
        mask = None if numbers is None else numbers == k
        things.append(_thing(one, mask, (place, f"object {k}"), passed))
    return AnnotatedImage(str(name), size, tuple(thing for thing in things if thing is not None))


def _size(tree: ET.Element, place: Path, found: Sequence[Path]) -> tuple[int, int]:
    """What the file says, else the size of the image."""
    height, width = ((tree.findtext(f"size/{side}") or "").strip() for side in ("height", "width"))
    if found and (height in _NO_SIZE or width in _NO_SIZE):
        return read_image_size(found[0])
    return read_size(height, width, f"{place}; correct <size>, or give --image-root, the folder of the images")


def _object_numbers(masks: Path, size: tuple[int, int], place: Path) -> npt.NDArray[np.int32] | None:
    """The object of each pixel, from 1, if there is a PNG of them."""
    if not masks.is_file():
        return None
    numbers = read_indices(masks)
    if numbers.shape != size:
        raise InputError(f"expected {masks} of the size (H, W) {size} that {place} says, got {numbers.shape}")
    return np.where(numbers < _VOID, numbers, 0).astype(np.int32)


def _thing(one: ET.Element, mask: npt.NDArray[np.bool_] | None, where: Place, passed: PassedOver) -> Annotation | None:
    """An object; None for one without four finite numbers as its box, of which ``passed`` is told."""
    try:
        name, *corners = (_text(one, tag, Path(where[0])) for tag in ("name", *_CORNERS))
        x0, y0, x1, y1 = order_box(corners, passed, where)
    except ValueError as problem:
        passed.refuse(*where, str(problem))
        return None
    rle = encode_rle(mask) if mask is not None and mask.any() else None
    difficult = (one.findtext("difficult") or "0").strip() == "1"
    return Annotation(name, (x0 - 1, y0 - 1, x1, y1), rle, crowd=difficult)


def _text(tree: ET.Element, tag: str, place: Path) -> str:
    text = (tree.findtext(tag) or "").strip()
    if not text:
        raise InputError(f"expected <{tag.replace('/', '><')}> in {place}, and there is none")
    return text
