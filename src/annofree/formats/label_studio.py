"""Label Studio: tasks with predictions, masks in its own brush run lengths, and the labeling config that fits.

The run lengths are those of the public rle-pack format: a stream of bits, most significant first, that says how many
words there are (32 bits), how long a word is less one (5), four lengths of counts less one (4 each); then for each run one
bit 1, two bits that choose a length, the count less one, and the word; or, after a bit 0, that many words as they stand.
A word is a byte here, and a pixel four equal ones (red, green, blue, alpha), row by row, 255 in the mask.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import numpy as np
import numpy.typing as npt

from annofree.errors import InputError
from annofree.formats.annotations import AnnotatedImage, AnnotatedImages, Annotation, list_names
from annofree.formats.passed_over import PassedOver
from annofree.formats.polygons import fill_to_rle
from annofree.io.coco_stream import stream_list
from annofree.io.json_stream import write_list
from annofree.io.xml import add_element, read_xml, write_xml
from annofree.ops.palette import assign_colors, to_hex
from annofree.ops.rle import decode_rle

__all__ = ["IMAGES", "decode_brush", "encode_brush", "read_label_studio", "write_label_studio"]

IMAGES = "images"
_TASKS, _CONFIG = "tasks.json", "label_config.xml"
_URL = "/data/local-files/?d="

_CHANNELS, _WIDTH = 4, 8
_COUNT_BITS = np.array([3, 4, 8, 16])
_LONGEST = 1 << 16
_KINDS = {"brushlabels": "BrushLabels", "rectanglelabels": "RectangleLabels", "polygonlabels": "PolygonLabels"}
_SHAPES = ("keypointlabels", "ellipselabels", "vectorlabels")
_FROM = {"brushlabels": "label", "rectanglelabels": "box"}

BoolArray = npt.NDArray[np.bool_]


def encode_brush(mask: BoolArray) -> list[int]:
    """Encode a mask (H, W) as Label Studio's brush does, a list of bytes.

    >>> encode_brush(np.array([[True, False]]))
    [0, 0, 0, 8, 57, 27, 252, 127, 241, 128, 0]
    """
    flat = mask.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    lengths = np.diff(starts, append=flat.size) * _CHANNELS
    pieces = -(-lengths // _LONGEST)
    values = np.repeat(np.where(flat[starts], 255, 0), pieces)
    counts = np.full(pieces.sum(), _LONGEST)
    counts[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * _LONGEST
    choice = np.searchsorted(1 << _COUNT_BITS, counts)
    bits = _COUNT_BITS[choice]
    words = ((4 + choice) << bits | (counts - 1)) << 8 | values
    head = [(flat.size * _CHANNELS, 32), (7, 5), *((int(b) - 1, 4) for b in _COUNT_BITS)]
    stream = _bits(np.array([[v, n] for v, n in head] + np.stack([words, bits + 11], 1).tolist(), np.int64))
    return list(np.packbits(stream).tolist())


def _bits(fields: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Write fields (n, 2) of value and length as bits, most significant first."""
    values, lengths = fields.T
    ends = np.repeat(np.cumsum(lengths), lengths)
    shifts = ends - 1 - np.arange(len(ends))
    return np.asarray((np.repeat(values, lengths) >> shifts) & 1, np.uint8)


def decode_brush(rle: Sequence[int], size: tuple[int, int]) -> BoolArray:
    """Decode Label Studio's brush run lengths to a mask (H, W): the pixels whose last channel is not 0.

    Raises InputError for invalid codes, and for another size.
    """
    stream = _Bits(rle)
    words, width = stream.read_number(32), stream.read_number(5) + 1
    lengths = [stream.read_number(4) + 1 for _ in range(4)]
    if words != size[0] * size[1] * _CHANNELS:
        raise InputError(f"expected brush run lengths of {size[0]} x {size[1]} pixels, got {words / _CHANNELS:g} pixels")
    if width != _WIDTH:
        raise InputError(f"expected brush run lengths of {_WIDTH}-bit words, got {width} bits; export the task again")
    out, at = np.zeros(words, np.uint8), 0
    while at < words:
        run = stream.read_number(1)
        count = stream.read_number(lengths[stream.read_number(2)]) + 1
        out[at : at + count] = stream.read_number(width) if run else stream.read_numbers(count, width)[: words - at]
        at += count
    return np.asarray(out.reshape(*size, _CHANNELS)[..., -1] > 0)


class _Bits:
    """A stream of bits, read in pieces."""

    def __init__(self, data: Sequence[int]) -> None:
        self._bits = np.unpackbits(np.asarray(data, np.uint8))
        self._digits = (self._bits + ord("0")).astype(np.uint8).tobytes()
        self._at = 0

    def read_number(self, length: int) -> int:
        """Read one number of so many bits."""
        self._at += length
        if self._at > len(self._digits):
            raise InputError("expected brush run lengths, but they end too soon; export the task again")
        return int(self._digits[self._at - length : self._at], 2)

    def read_numbers(self, count: int, length: int) -> npt.NDArray[np.int64]:
        """Read many numbers of so many bits each."""
        begin, self._at = self._at, self._at + count * length
        if self._at > len(self._bits):
            raise InputError("expected brush run lengths, but they end too soon; export the task again")
        return np.asarray(self._bits[begin : self._at].reshape(count, length) @ (1 << np.arange(length)[::-1]), np.int64)


def write_label_studio(file: AnnotatedImages, out: Path) -> None:
    """Write ``tasks.json``, a task an image with its prediction, and ``label_config.xml`` for the project.

    ``model_version`` is taken from the file's info.
    """
    names = list_names(file)
    version = str(file.info.get("model_version", "annofree"))
    write_list(out / _TASKS, (_task(image, version) for image in file))
    boxes = any(thing.rle is None for image in file for thing in image.things)
    write_xml(out / _CONFIG, _config(names, ["brushlabels", *(["rectanglelabels"] if boxes else [])]), declaration=False)


def _config(names: Sequence[str], kinds: Sequence[str]) -> ET.Element:
    root = ET.Element("View")
    add_element(root, "Image", name="image", value="$image", zoom="true")
    for kind in kinds:
        tag = add_element(root, _KINDS[kind], name=_FROM[kind], toName="image")
        for name, color in assign_colors(names).items():
            add_element(tag, "Label", value=name, background=to_hex(color))
    return root


def _task(image: AnnotatedImage, version: str) -> dict[str, Any]:
    height, width = image.size
    scores = [thing.score for thing in image.things if thing.score is not None]
    prediction: dict[str, Any] = {"model_version": version}
    if scores:
        prediction["score"] = sum(scores) / len(scores)
    prediction["result"] = [_result(k, thing, image.size) for k, thing in enumerate(image.things, 1)]
    url = _URL + quote(f"{IMAGES}/{image.file_name}")
    data = {"image": url, "file_name": image.file_name, "width": width, "height": height}
    return {"data": data, "predictions": [prediction]}


def _result(number: int, thing: Annotation, size: tuple[int, int]) -> dict[str, Any]:
    kind = "rectanglelabels" if thing.rle is None else "brushlabels"
    result = {
        "id": f"thing-{number}",
        "type": kind,
        "from_name": _FROM[kind],
        "to_name": "image",
        "original_width": size[1],
        "original_height": size[0],
        "image_rotation": 0,
        "value": {**_value(thing, size), kind: [thing.name]},
    }
    return result if thing.score is None else result | {"score": thing.score}


def _value(thing: Annotation, size: tuple[int, int]) -> dict[str, Any]:
    if thing.rle is not None:
        return {"format": "rle", "rle": encode_brush(decode_rle(thing.rle))}
    x0, y0, x1, y1 = thing.box
    across, down = 100 / size[1], 100 / size[0]
    return {"x": x0 * across, "y": y0 * down, "width": (x1 - x0) * across, "height": (y1 - y0) * down, "rotation": 0}


def read_label_studio(path: Path, images: Path | None = None, passed: PassedOver | None = None) -> AnnotatedImages:
    """Read tasks exported as JSON or written here: the annotations of a task, else its first prediction.

    Brushes, rectangles and polygons are read, choices and texts ignored; other shapes raise InputError.
    """
    place = path / _TASKS if path.is_dir() else path
    config = place.with_name(_CONFIG)
    tags = read_xml(config, "View").iter("Label") if config.is_file() else []
    names = [tag.get("value", "") for tag in tags]
    return AnnotatedImages.named(names, lambda: (_image(task, place) for task in stream_list(place)))


def _image(task: dict[str, Any], place: Path) -> AnnotatedImage:
    if "data" not in task:
        raise InputError(f"expected a list of tasks with data in {place}; export as JSON, not as JSON-MIN")
    data, answers = task["data"], task.get("annotations") or task.get("predictions") or [{}]
    results = [r for r in answers[0].get("result", []) if r.get("type") in (*_KINDS, *_SHAPES)]
    size = next(((r["original_height"], r["original_width"]) for r in results), (data.get("height"), data.get("width")))
    if None in size:
        raise InputError(f"expected width and height in the data of a task without regions in {place}; add them")
    return AnnotatedImage(_file_name(data), size, tuple(_thing(r, size, place) for r in results))


def _file_name(data: dict[str, Any]) -> str:
    """The image's name: ours, else what its address says."""
    if "file_name" in data:
        return str(data["file_name"])
    address = urlsplit(str(data["image"]))
    asked = parse_qs(address.query).get("d")
    name = asked[0] if asked else unquote(address.path)
    return PurePosixPath(name).name


def _thing(result: dict[str, Any], size: tuple[int, int], place: Path) -> Annotation:
    kind, value, score = result["type"], result["value"], result.get("score")
    if kind not in _KINDS or value.get("rotation") or result.get("image_rotation"):
        raise InputError(f"expected upright brushes, rectangles and polygons in {place}, got {kind}; redraw it")
    name = value[kind][0]
    if kind == "brushlabels":
        return Annotation.of_mask(name, decode_brush(value["rle"], size), score)
    scale = np.array([size[1], size[0]]) / 100
    if kind == "polygonlabels":
        return Annotation.of_mask(name, decode_rle(fill_to_rle([np.asarray(value["points"]) * scale], size)), score)
    low = np.array([value["x"], value["y"]]) * scale
    (x0, y0), (x1, y1) = low.tolist(), (low + np.array([value["width"], value["height"]]) * scale).tolist()
    return Annotation(name, (x0, y0, x1, y1), None, score)
