"""The masks of a run, or of a COCO file of anybody's, found again by the name of their image.

The file is read once, row by row, and laid out in a temporary file, so that memory grows with images and not with masks.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple
from weakref import finalize

import numpy as np

from annofree.errors import InputError
from annofree.formats.annotations import AnnotatedImage, Annotation
from annofree.formats.registry import read_run
from annofree.hub.cards import hash_file
from annofree.io.read_json import read_own_json
from annofree.ops.rle import RLE, compute_rle_boxes, fill_polygons, pack_counts, unpack_counts
from annofree.structures import Classes, Detections, Image, Vocabulary

__all__ = ["ImageMasks", "StoredInstances", "StoredMasks", "is_stored_masks"]

_ANNOTATIONS = "annotations.json"
_SHOWN = 3  # names of images in an error


class ImageMasks(NamedTuple):
    """What is stored of an image of ``size`` (H, W): ``counts`` (N), masks as run lengths, and ``scores`` (N) in 0 .. 1.

    ``boxes`` says how many of the masks are boxes, for want of masks.
    """

    size: tuple[int, int]
    counts: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    boxes: int = 0

    @property
    def rles(self) -> tuple[RLE, ...]:
        """The masks as ``ops/rle.py`` takes them."""
        return unpack_counts(self.counts, self.size)


def is_stored_masks(place: Path) -> bool:
    """Whether a place is a run with instances, or may be a COCO file."""
    return (place / _ANNOTATIONS).is_file() or (place.is_file() and place.suffix.lower() == ".json")


class StoredMasks:
    """The masks of a run's folder or of a COCO file, whatever their names; nothing is read before it is asked for.

    Crowds are left out; an annotation without a score has 1, one that scores more is taken as 1.  Raises InputError for a
    file that is no COCO file, for a negative score, an image that is listed twice, and a mask of another size than its image.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.path = place / _ANNOTATIONS if place.is_dir() else place

    @property
    def is_run(self) -> bool:
        """Whether the masks are those of a run of this package."""
        return self.place.is_dir() and (self.place / "run.json").is_file()

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """The file with its hash, and for a run how its masks were made."""
        held = {"name": self.place.name, "sha256": {self.path.name: hash_file(self.path)}}
        return held | {"made_by": self._about} if self.is_run else held

    @property
    def models(self) -> list[Mapping[str, Any]]:
        """The models that made the masks; of a foreign file one of which nothing is known."""
        if not self.is_run:
            unknown = dict.fromkeys(("tier", "licence", "code_licence"), "unknown")
            return [{"name": self.place.name, "kind": "masks", **unknown}]
        methods = self._about.get("methods") or [self._about]
        return [model for method in methods for model in method.get("models", [])]

    @cached_property
    def _about(self) -> dict[str, Any]:
        held = read_own_json(self.place / "run.json", "what a run says of itself", "make the run anew with --fresh")
        about = held.get("provenance")
        return about if isinstance(about, dict) else {}

    @property
    def key(self) -> tuple[Any, ...]:
        """The hash of the file."""
        return tuple(self.provenance["sha256"].values())

    def list_images(self) -> list[str]:
        """The names of all images, in the order of the file."""
        return list(self._laid_out[1])

    @property
    def remarks(self) -> list[str]:
        """What was left out or changed, and how often."""
        return [f"{count} of the stored masks {what}" for what, count in self._laid_out[2].items()]

    def list_masks(self, images: Sequence[Image]) -> list[ImageMasks]:
        """What is stored of some images, which are found by their id; raises InputError for one that is not listed."""
        return [self.read(image.id) for image in images]

    def read(self, name: str) -> ImageMasks:
        """What is stored of an image; raises InputError for one that is not listed."""
        file, places, _ = self._laid_out
        if name not in places:
            listed = ", ".join(list(places)[:_SHOWN]) + (", ..." if len(places) > _SHOWN else "")
            raise InputError(f"expected masks of {name} in {self.path}, which lists {len(places)} images: {listed}")
        file.seek(places[name])
        size, counts, scores, boxes = json.loads(file.readline())
        return ImageMasks((size[0], size[1]), tuple(counts), tuple(scores), boxes)

    @cached_property
    def _laid_out(self) -> tuple[IO[bytes], dict[str, int], Counter[str]]:
        """A temporary file with a line an image, where each line begins, and how often something was left out or changed."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 -- open for as long as this is
        finalize(self, file.close)
        places, noted = dict[str, int](), Counter[str]()
        for image in read_run(self.path, {}):
            if image.file_name in places:
                raise InputError(f"expected each image once in {self.path}, got {image.file_name} twice; rename one")
            places[image.file_name] = file.tell()
            file.write(json.dumps(self._lay_out(image, noted)).encode("ascii") + b"\n")
        return file, places, noted

    def _lay_out(self, image: AnnotatedImage, noted: Counter[str]) -> ImageMasks:
        things = [thing for thing in image.things if not thing.crowd]
        scores = [self._score(thing, image.file_name) for thing in things]
        boxes = sum(thing.rle is None for thing in things)
        counted = {
            "are crowds, and were left out": len(image.things) - len(things),
            "have no score, which is taken as 1": sum(thing.score is None for thing in things),
            "score more than 1, which is taken as 1": sum(score > 1 for score in scores),
            "are boxes alone": boxes,
        }
        noted.update({what: count for what, count in counted.items() if count})
        rles = [_draw_box(thing, image.size) if thing.rle is None else thing.rle for thing in things]
        return ImageMasks(image.size, pack_counts(rles), tuple(min(score, 1.0) for score in scores), boxes)

    def _score(self, thing: Annotation, image: str) -> float:
        if thing.score is None:
            return 1.0
        if not (math.isfinite(thing.score) and thing.score >= 0):
            raise InputError(f"expected scores from 0 to 1 in {self.path}, got {thing.score} in image {image}; rescale them")
        return thing.score


class StoredInstances:
    """The masks of a place as instances of whatever one name is asked for, so that they serve as an objectness."""

    def __init__(self, masks: StoredMasks) -> None:
        self.masks = masks

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the masks are, and the models that made them."""
        return {"method": "stored_masks", "masks": self.masks.provenance, "models": self.masks.models}

    def remarks(self, classes: Classes) -> list[str]:
        """What was left out or changed, and how often."""
        return self.masks.remarks

    def encode(self, images: Sequence[Image]) -> list[ImageMasks]:
        """What is stored of each image; raises InputError where it is not listed, or is of another size."""
        stored = self.masks.list_masks(images)
        for image, found in zip(images, stored, strict=True):
            if found.size != image.size:
                its, got = (f"{width}x{height}" for height, width in (image.size, found.size))
                raise InputError(f"expected masks of {image.id} at its size, {its}, got {got} in {self.masks.path}")
        return stored

    def instances(self, image: Image | ImageMasks, classes: Classes) -> Detections:
        """All masks of an image under the first name that is asked for, the highest score first."""
        stored = self.encode([image])[0] if isinstance(image, Image) else image
        names, rles, scores = Vocabulary.of(classes).names, stored.rles, np.array(stored.scores, np.float32)
        found = Detections(stored.size, names, np.zeros(len(rles), np.int64), scores, compute_rle_boxes(rles), rles)
        return found[np.argsort(-found.scores, kind="stable")]


def _draw_box(thing: Annotation, size: tuple[int, int]) -> RLE:
    x0, y0, x1, y1 = thing.box
    return fill_polygons([[x0, y0, x1, y0, x1, y1, x0, y1]], size)
