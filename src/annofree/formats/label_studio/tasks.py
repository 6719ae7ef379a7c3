"""Label Studio: tasks with predictions, masks in its own brush run lengths, and the labeling config that fits."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from annofree.errors import InputError
from annofree.formats.annotations import AnnotatedImage, AnnotatedImages, Annotation, list_names
from annofree.formats.label_studio.regions import build_region, describe_problem, draw_region, label_regions, list_regions
from annofree.formats.passed_over import PassedOver, Place
from annofree.formats.values import find_image, read_image_size, read_objects, read_size
from annofree.io.coco_stream import stream_list
from annofree.io.image_files import SUFFIXES
from annofree.io.json_stream import write_list
from annofree.io.xml import add_element, read_xml, write_xml
from annofree.ops.palette import assign_colors, to_hex

__all__ = ["IMAGES", "read_label_studio", "write_label_studio"]

IMAGES = "images"
_TASKS, _CONFIG = "tasks.json", "label_config.xml"
_URL = "/data/local-files/?d="

_KINDS = {"brushlabels": "BrushLabels", "rectanglelabels": "RectangleLabels"}
_FROM = {"brushlabels": "label", "rectanglelabels": "box"}


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
    return build_region(f"thing-{number}", kind, thing, size, _FROM[kind], "image")


def read_label_studio(path: Path, images: Path | None = None, passed: PassedOver | None = None) -> AnnotatedImages:
    """Read tasks exported as JSON or written here: the submitted annotation of a task, else its first prediction.

    Brushes, rectangles and polygons are read, choices and texts are no regions; other shapes are refused.  Cancelled
    annotations, further ones of a task and further predictions are counted.  The size of an image without regions is that of
    its task, or of the file below ``images``.
    """
    passed = passed or PassedOver()
    place = path / _TASKS if path.is_dir() else path
    config = place.with_name(_CONFIG)
    tags = read_xml(config, "View").iter("Label") if config.is_file() else []
    names = [tag.get("value", "").strip() for tag in tags]
    return AnnotatedImages.named(names, lambda: passed.check_after(_Reading(place, images, passed).read_all()))


class _Reading:
    """One reading of a file of tasks."""

    def __init__(self, place: Path, images: Path | None, passed: PassedOver) -> None:
        self.place, self.images, self.passed = place, images, passed
        self._addresses: dict[str, str] = {}

    def read_all(self) -> Iterator[AnnotatedImage]:
        for number, task in enumerate(stream_list(self.place), 1):
            if not isinstance(task.get("data"), dict):
                raise InputError(f"expected a list of tasks with data in {self.place}; export as JSON, not as JSON-MIN")
            where = (self.place, f"task {number}")
            try:
                image = self._read_task(task, where)
            except (ValueError, TypeError, KeyError, AttributeError) as problem:
                self.passed.refuse(*where, describe_problem(problem), what="tasks")
            else:
                if image is not None:
                    yield image

    def _read_task(self, task: dict[str, Any], where: Place) -> AnnotatedImage | None:
        """The image of a task, None where it is that of an earlier one."""
        answers, others = _sort_answers(task)
        regions = list_regions(answers[0]) if answers else []
        for one, reason in [*((one, "a further answer to the task") for one in answers[1:]), *others]:
            self._count(list_regions(one), (where[0], f"{where[1]}, answer {one.get('id', '?')}"), reason)
        name = self._find_name(task["data"])
        if name is None:
            self._count(regions, where, f"a second task of the image {_find_address(task['data'])}")
            return None
        size = self._find_size(task, name, where)
        named = list(enumerate(label_regions(regions), 1))
        things = [self._read_region(*one, size, (where[0], f"{where[1]}, region {k}")) for k, one in named]
        return AnnotatedImage(name, size, tuple(thing for thing in things if thing is not None))

    def _count(self, regions: list[dict[str, Any]], where: Place, reason: str) -> None:
        count = len(label_regions(regions))
        if count:
            self.passed.note(*where, reason, count=count)

    def _find_name(self, data: dict[str, Any]) -> str | None:
        """The image's name: ours, else what its address says, with its folders where another image has that name."""
        address = _find_address(data)
        path = _read_path(address)
        ends = [str(PurePosixPath(*path.parts[k:])) for k in range(len(path.parts))]
        there = (end for end in ends if self.images and find_image(self.images, end))
        name = str(data["file_name"]) if "file_name" in data else next(there, path.name)
        if self._addresses.get(name, address) != address:
            name = str(path)
        if name in self._addresses:
            return None
        self._addresses[name] = address
        return name

    def _find_size(self, task: dict[str, Any], name: str, where: Place) -> tuple[int, int]:
        """The size that regions say, cancelled ones too, else that of the task's data, else of the file."""
        answers = [*read_objects(task.get("annotations"), "annotations"), *read_objects(task.get("predictions"), "predictions")]
        said = (r for one in answers for r in list_regions(one) if r.get("original_height") and r.get("original_width"))
        first = next(said, None)
        if first is not None:
            return read_size(first["original_height"], first["original_width"], " ".join(map(str, where)))
        data = task["data"]
        if data.get("height") is not None and data.get("width") is not None:
            return read_size(data["height"], data["width"], " ".join(map(str, where)))
        file = find_image(self.images, name) if self.images else None
        if file is None:
            raise ValueError(f"neither regions nor width and height, and no image {name} in --image-root that has a size")
        return read_image_size(file)

    def _read_region(self, region: dict[str, Any], names: list[str], size: tuple[int, int], where: Place) -> Annotation | None:
        try:
            if not names:
                raise ValueError(f"a region of type {region.get('type')} without a label")
            thing = draw_region(region, names[0], size, self.passed, where)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as problem:
            self.passed.refuse(*where, describe_problem(problem))
            return None
        if len(names) > 1:
            self.passed.note(*where, f"further labels of one region, {', '.join(names[1:])}", "labels", len(names) - 1)
        return thing


def _sort_answers(task: dict[str, Any]) -> tuple[list[dict[str, Any]], list[tuple[dict[str, Any], str]]]:
    """The answers of a task that count, the one to take first, and others with the reason why they do not."""
    annotations = read_objects(task.get("annotations"), "annotations")
    cancelled = [(one, "a cancelled annotation") for one in annotations if one.get("was_cancelled")]
    answers = [one for one in annotations if not one.get("was_cancelled")]
    if not annotations:
        answers = read_objects(task.get("predictions"), "predictions")
    return sorted(answers, key=lambda one: not one.get("ground_truth")), cancelled


def _find_address(data: dict[str, Any]) -> str:
    """What a task says of its image, under whatever name the project has for it."""
    texts = [text for text in data.values() if isinstance(text, str)]
    found = (text for text in texts if str(_read_path(text)).lower().endswith(SUFFIXES))
    address = data.get("image") or next(found, None) or data.get("file_name")
    if not isinstance(address, str):
        raise ValueError("expected the address of an image in the data of the task, got none")
    return address


def _read_path(address: str) -> PurePosixPath:
    """The path of an image in the storage that an address names."""
    url = urlsplit(address)
    asked = parse_qs(url.query).get("d")
    path = PurePosixPath((asked[0] if asked else unquote(url.path)).replace("\\", "/").lstrip("/"))
    return PurePosixPath(*(part for part in path.parts if part != ".."))
