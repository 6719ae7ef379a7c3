"""A project's labeling interface: which image its tasks have, which names it asks for, and how regions are to be given.

XML -> the tag of the image -> the tags whose labels can be regions of it -> classes, each with the tag it is given by
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from annofree.errors import InputError
from annofree.io.xml import parse_xml
from annofree.structures import Vocabulary

__all__ = ["Control", "Labeling", "parse_labeling"]

_WHERE = "the labeling interface"
_LONGEST, _MOST_LABELS = 1 << 20, 2000  # signs of an interface, and its labels
_KINDS = {"BrushLabels": "brushlabels", "PolygonLabels": "polygonlabels", "RectangleLabels": "rectanglelabels"}
"""Tags with labels of their own, the one that tells most of a mask first."""
_SHAPES = {"Brush": "brush", "Polygon": "polygon", "Rectangle": "rectangle"}
"""Tags of shapes whose labels stand under a tag of their own, ``Labels``."""


@dataclass(frozen=True)
class Control:
    """A tag that regions are made with: its ``name``, the ``kind`` of its regions, and the ``image`` tag they are of.

    ``labels`` is the name of the tag that holds the labels, where that is another one.
    """

    name: str
    kind: str
    image: str
    labels: str | None = None


@dataclass(frozen=True)
class Labeling:
    """What a labeling interface asks for.

    ``key`` is what the data of a task calls the image; ``vocabulary`` the names to ask for; ``labels`` what regions of the
    k-th name are labeled, and ``controls`` by which tag.
    """

    key: str
    vocabulary: Vocabulary
    labels: tuple[str, ...]
    controls: tuple[Control, ...]

    def find_picture(self, task: dict[str, Any]) -> str:
        """The address of a task's image; raises InputError for a task without."""
        data = task.get("data")
        address = data.get(self.key) if isinstance(data, dict) else None
        if not isinstance(address, str) or not address:
            raise InputError(f"expected the address of an image as {self.key!r} in the data of task {task.get('id')}, got none")
        return address


def parse_labeling(text: Any) -> Labeling:
    """Read a labeling interface: an ``Image`` and labels for brushes, polygons or rectangles on it.

    A label may name other words for the same thing: ``<Label value="cat" synonyms="kitten | tabby"/>``.  Where a label has
    an ``alias``, regions carry that, and the ``value`` is asked for.  Raises InputError for an interface without them.

    >>> brush = '<BrushLabels name="b" toName="i"><Label value="cat"/></BrushLabels>'
    >>> found = parse_labeling(f'<View><Image name="i" value="$photo"/>{brush}</View>')
    >>> found.key, found.labels, found.controls[0].kind
    ('photo', ('cat',), 'brushlabels')
    """
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise InputError(f"expected {_WHERE} as XML of at most {_LONGEST} signs, got {type(text).__name__}")
    root = parse_xml(text, "View", _WHERE)
    images = {tag.get("name", ""): tag.get("value", "") for tag in root.iter("Image") if tag.get("value", "").startswith("$")}
    found: dict[str, tuple[tuple[str, ...], Control]] = {}
    if sum(1 + one.get("synonyms", "").count("|") for one in root.iter("Label")) > _MOST_LABELS:
        raise InputError(f"expected {_WHERE} to have at most {_MOST_LABELS} labels and synonyms, got more; ask for fewer")
    for control, tag in _list_controls(root, images):
        for label, words in _list_labels(tag):
            found.setdefault(label, (words, control))
    image = next((control.image for _, control in found.values()), None)
    if image is None:
        raise InputError(
            f"expected {_WHERE} to have an <Image> whose value is such as $image, and <BrushLabels>, <PolygonLabels> or "
            "<RectangleLabels> with a <Label> for it; add them"
        )
    kept = {label: one for label, one in found.items() if one[1].image == image}
    vocabulary = Vocabulary.from_entries(words for words, _ in kept.values())
    return Labeling(images[image][1:], vocabulary, tuple(kept), tuple(control for _, control in kept.values()))


def _list_controls(root: ET.Element, images: dict[str, str]) -> Iterator[tuple[Control, ET.Element]]:
    """Tags with labels for an image, the kinds that tell most of a mask first, each with the tag that holds the labels."""
    for tag, kind in _KINDS.items():
        for one in root.iter(tag):
            if one.get("toName", "") in images:
                yield Control(one.get("name", ""), kind, one.get("toName", "")), one
    for tag, kind in _SHAPES.items():
        shapes = {one.get("toName", ""): one for one in reversed(list(root.iter(tag)))}  # the first of each image
        for labels in root.iter("Labels"):
            image = labels.get("toName", "")
            if image in images and image in shapes:
                yield Control(shapes[image].get("name", ""), kind, image, labels.get("name", "")), labels


def _list_labels(tag: ET.Element) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The labels of a tag as regions carry them, each with the words to ask for."""
    for label in tag.iter("Label"):
        value = label.get("value", "").strip()
        if value and not value.startswith("$"):
            others = (" ".join(word.split()) for word in label.get("synonyms", "").split("|"))
            words = dict.fromkeys([" ".join(value.split()), *(word for word in others if word)])
            yield (label.get("alias") or value).strip(), tuple(words)
