"""Rules of scoring instances that papers differ in, by name: which images, which names are asked for, which are scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from annofree.datasets.benchmarks.class_agnostic import merge_categories
from annofree.datasets.benchmarks.coco20k import select_coco20k
from annofree.datasets.benchmarks.coco_ovd import BASE_48, NOVEL_17, select_coco_48_17
from annofree.datasets.benchmarks.unseen import UNSEEN_15, keep_categories
from annofree.datasets.benchmarks.voc_objects import read_voc_objects
from annofree.datasets.names import VOC_SPELLINGS
from annofree.errors import build_unknown_error
from annofree.evaluation.metrics.instance import InstanceScores, IouType, count_instances, evaluate_instances
from annofree.evaluation.metrics.predictions import View
from annofree.formats.coco import CocoFile
from annofree.io.images import read_image
from annofree.protocols import Segmenter
from annofree.structures import Vocabulary

__all__ = ["INSTANCE_PROTOCOLS", "InstanceProtocol", "find_instance_protocol"]

Places = Mapping[str, Path]


@dataclass(frozen=True)
class InstanceProtocol:
    """One way to score instances by COCO's AP, over IoU 0.50:0.95, with 100 detections per image."""

    # what it is asked for by
    name: str
    # whose rules they are, in a line
    about: str
    # reads the truth from the places that ``needs`` names and a split
    open: Callable[[Places, str | None], CocoFile] = field(repr=False)
    # the places, by name
    needs: tuple[str, ...] = ("truth", "images")
    # the folder of its images, as the name of a place and a folder in it
    images: tuple[str, str] = ("images", "")
    # the categories that count, all where it is None
    scored: tuple[str, ...] | None = None
    # whether a method is asked for those alone or for all
    asked: Literal["scored", "all"] = "scored"
    # the words asked for in place of a data set's own
    spellings: Mapping[str, str] = field(default_factory=dict)
    # categories, by the name of a group, that are scored apart too
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # whether masks or boxes are held against the truth
    iou_type: IouType = "segm"

    def read_truth(self, places: Places, split: str | None = None, limit: int | None = None) -> CocoFile:
        """Read the truth, of its first ``limit`` images if need be; raises InputError when files are missing."""
        whole = self.open(places, split)
        if limit is None:
            return whole
        images = whole.images[:limit]
        ids = {row["id"] for row in images}
        return CocoFile(images, whole.categories, [row for row in whole.annotations if row["image_id"] in ids], whole.info)

    def select_counted(self, truth: CocoFile) -> CocoFile:
        """The truth with the categories that are scored."""
        return truth if self.scored is None else keep_categories(truth, self.scored)

    def predict(self, method: Segmenter, truth: CocoFile, places: Places, on_progress: Callable[[int, int], None]) -> CocoFile:
        """Ask a method about image after image, one in memory at a time; what it says of names not scored is dropped.

        Raises ImageError for an image that cannot be read.
        """
        categories = self.select_counted(truth).categories if self.asked == "scored" else truth.categories
        vocabulary = Vocabulary.from_entries((self.spellings.get(row["name"], row["name"]),) for row in categories)
        ids = [row["id"] for row in categories]
        found = CocoFile(images=truth.images, categories=self.select_counted(truth).categories)
        counting = {row["id"] for row in found.categories}
        folder = places[self.images[0]] / self.images[1]
        for done, row in enumerate(truth.images):
            on_progress(done, len(truth.images))
            said = method.instances(read_image(folder / row["file_name"]), vocabulary).to_coco(row["id"], ids)
            found.add_annotations([answer for answer in said if answer["category_id"] in counting])
        on_progress(len(truth.images), len(truth.images))
        return found

    def compute_scores(self, truth: CocoFile, found: CocoFile) -> dict[View, InstanceScores]:
        """Score masks or boxes, class-aware and class-agnostic; the latter is the same detections as one class."""
        views: Sequence[View] = ("class-aware", "class-agnostic")
        counted = self.select_counted(truth)
        return {view: evaluate_instances(counted, found.annotations, view=view, iou_type=self.iou_type) for view in views}

    def group_scores(self, truth: CocoFile, found: CocoFile) -> dict[str, InstanceScores]:
        """Score the classes of each group, class-aware; no answers where the protocol has no groups."""
        if not self.groups:
            return {}
        counted = count_instances(self.select_counted(truth), found.annotations, iou_type=self.iou_type)
        return {name: counted.compute_scores(names) for name, names in self.groups.items()}


def _coco(places: Places, split: str | None) -> CocoFile:
    return CocoFile.read(places["truth"])


def _coco20k(places: Places, split: str | None) -> CocoFile:
    return select_coco20k(places["truth"], places["list"])


def _coco_agnostic(places: Places, split: str | None) -> CocoFile:
    return merge_categories(_coco(places, split))


def _coco20k_agnostic(places: Places, split: str | None) -> CocoFile:
    return merge_categories(_coco20k(places, split))


def _coco_48_17(places: Places, split: str | None) -> CocoFile:
    return select_coco_48_17(CocoFile.read(places["truth"]))


def _voc(places: Places, split: str | None) -> CocoFile:
    return read_voc_objects(places["truth"], split or "val")


_OF_20K = ("truth", "images", "list")
_SPLIT = "COCO-20K, 15 classes that training left out, AP over those"

INSTANCE_PROTOCOLS: Mapping[str, InstanceProtocol] = {
    protocol.name: protocol
    for protocol in (
        InstanceProtocol("coco-instances", "COCO instances as they are in a file, crowds ignored as COCO does", _coco),
        InstanceProtocol("coco-agnostic", "COCO instances, all called object, for what is found without names", _coco_agnostic),
        InstanceProtocol("coco-20k-agnostic", "COCO-20K, all called object (CutLER)", _coco20k_agnostic, _OF_20K),
        InstanceProtocol("coco-20k", "COCO-20K: images of train2014 by LOST's list, all 80 classes", _coco20k, _OF_20K),
        InstanceProtocol("coco-20k-unseen", f"{_SPLIT}, only those asked for (zero-shot)", _coco20k, _OF_20K, scored=UNSEEN_15),
        InstanceProtocol(
            "coco-20k-unseen-of-80",
            f"{_SPLIT}, all 80 asked for (generalised zero-shot)",
            _coco20k,
            _OF_20K,
            scored=UNSEEN_15,
            asked="all",
        ),
        InstanceProtocol(
            "coco-48-17",
            "COCO's boxes, 48 base and 17 novel classes asked for together, in images that have any of them (OVR-CNN)",
            _coco_48_17,
            groups={"novel": NOVEL_17, "base": BASE_48},
            iou_type="bbox",
        ),
        InstanceProtocol(
            "voc-objects",
            "VOC 2012's objects without their borders, names respelled (ZUTIS; its own truth was not published)",
            _voc,
            ("truth",),
            ("truth", "JPEGImages"),
            spellings=VOC_SPELLINGS["zutis"],
        ),
    )
}
"""The protocols by name."""


def find_instance_protocol(name: str) -> InstanceProtocol:
    """Return the protocol of a name; raises InputError with the nearest names for an unknown one."""
    if name not in INSTANCE_PROTOCOLS:
        raise build_unknown_error("protocol", name, INSTANCE_PROTOCOLS)
    return INSTANCE_PROTOCOLS[name]
