"""Fidelity of a format: compares a file with what is read back after writing it, object by object."""

from __future__ import annotations

from array import array
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from annofree.formats.annotations import AnnotatedImage, AnnotatedImages, Annotation, list_names
from annofree.formats.coco import CocoFile
from annofree.formats.passed_over import PassedOver
from annofree.io.atomic import write_json
from annofree.ops.rle import compute_box_ious, compute_rle_areas, compute_rle_ious, compute_rle_parts

__all__ = ["Fidelity", "compare"]

FloatArray = npt.NDArray[np.float64]

_MOST_NAMED = 20  # of the objects that changed the most
_SAME_NAME = 1e-3  # tells twins of two classes apart, and nothing else
_SWALLOWED = 0.5  # of a lost object's pixels
_NEAR = 2.0  # px, of boxes without an area
_SHIFTED = 0.005  # px, the rounding of formats that write two digits


@dataclass
class Fidelity:
    """What a format preserved of a file's objects.

    ``mask_iou`` are mean and least over objects that had a mask and were found again, None where there are none;
    ``exact`` counts the pixel-equal ones and ``boxes_only`` those found again without their mask.  ``lost`` objects are
    nowhere, ``merged`` ones in another's mask, ``added`` ones have no original.  ``box_shift`` is the most that any side
    of a box moved, px.  ``changes`` names the objects that changed the most, ``passed`` what the reader of the source passed
    over or corrected, which no other number counts.
    """

    format: str
    pictures: int = 0
    pictures_lost: list[str] = field(default_factory=list)
    objects: int = 0
    found: int = 0
    mask_iou: dict[str, float] | None = None
    masks: int = 0
    exact: int = 0
    boxes_only: int = 0
    lost: int = 0
    merged: int = 0
    added: int = 0
    renamed: int = 0
    classes_lost: list[str] = field(default_factory=list)
    box_shift: float = 0.0
    boxes_shifted: int = 0
    scores: int = 0
    scores_lost: int = 0
    crowds_left_out: int = 0
    category_ids_changed: bool = False
    pictures_renamed: dict[str, str] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)
    passed: PassedOver = field(default_factory=PassedOver)

    @property
    def losses(self) -> list[str]:
        """Describe the losses; empty if there are none."""
        changed = self.masks - self.exact - self.boxes_only
        said = {
            "pictures": len(self.pictures_lost),
            "objects": self.lost,
            "objects merged into others": self.merged,
            "objects more than there were": self.added,
            "masks, their boxes are kept": self.boxes_only,
            "masks changed": changed,
            "objects under another class": self.renamed,
            "class names": len(self.classes_lost),
            f"boxes moved, by {self.box_shift:.2f} px at most": self.boxes_shifted,
            "scores": self.scores_lost,
            "crowd regions, left out": self.crowds_left_out,
        }
        words = [f"{count} {what}" for what, count in said.items() if count]
        return self.passed.losses + words + ["category ids, numbered anew"] * self.category_ids_changed

    def as_table(self) -> str:
        """Format the figures in a few lines, the last of which lists the losses."""
        iou = self.mask_iou
        masks = f"IoU mean {iou['mean']:.4f}, min {iou['min']:.4f}; " if iou else ""
        lines = [
            f"fidelity of {self.format}: {self.pictures} images, {self.objects} objects, read back and compared",
            f"  masks    {masks}{self.exact} of {self.masks} exact",
            f"  objects  {self.found} found, {self.lost} lost, {self.merged} merged, {self.added} added, "
            f"{self.renamed} under another class",
            f"  boxes    moved by {self.box_shift:.2f} px at most",
            f"  scores   {self.scores - self.scores_lost} of {self.scores} kept",
        ]
        if self.pictures_renamed:
            lines.append(f"  images {len(self.pictures_renamed)} named otherwise, see pictures_renamed in fidelity.json")
        lines += self.passed.format_lines()
        losses = self.losses
        return "\n".join([*lines, f"lost: {'; '.join(losses)}" if losses else "nothing was lost"])

    def write(self, path: Path) -> None:
        """Write all figures as JSON."""
        figures = {key: value for key, value in vars(self).items() if key != "passed"}
        write_json(path, {"losses": self.losses, **figures, **self.passed.to_json_dict()}, indent=2)


def compare(
    format: str,  # noqa: A002 -- the word for it
    before: CocoFile | AnnotatedImages,
    after: CocoFile | AnnotatedImages,
    *,
    by_stem: bool = False,
) -> Fidelity:
    """Compare what was written with what was read back, images by name, objects by their overlap.

    Where a format keeps no more, ``by_stem`` finds images by their name without ending.  Images are read one by one as
    long as both sides have about the same order; images ahead of the other side wait in memory.
    """
    report, overlaps = Fidelity(format), array("d")
    first, second = (side if isinstance(side, AnnotatedImages) else AnnotatedImages.of(side) for side in (before, after))
    back = _Back(second, by_stem)
    for image in first:
        other = back.find(image)
        report.pictures += 1
        report.objects += len(image.things)
        if other is None:
            report.pictures_lost.append(image.file_name)
        _compare(report, image, other.things if other else (), overlaps)
        report.changes = _worst(report.changes, at_most=100 * _MOST_NAMED)
    if overlaps:
        report.mask_iou = {"mean": float(np.mean(overlaps)), "min": min(overlaps)}
    report.classes_lost = sorted(set(list_names(first)) - set(back.ids))
    report.category_ids_changed = _ids(first) != {k: v for k, v in back.ids.items() if k in _ids(first)}
    report.changes = _worst(report.changes, at_most=_MOST_NAMED)
    return report


class _Back:
    """What was read back, image by image; ``ids`` are those of the categories seen so far, by name."""

    def __init__(self, images: AnnotatedImages, by_stem: bool) -> None:
        list_names(images)  # raises where two share one
        self.ids, self._by_stem = _ids(images), by_stem
        self._coming, self._early = iter(images), defaultdict[str, deque[AnnotatedImage]](deque)

    def find(self, image: AnnotatedImage) -> AnnotatedImage | None:
        """The same image, None where there is none."""
        key = self._key(image)
        while not self._early[key] and (other := next(self._coming, None)) is not None:
            for thing in other.things:
                self.ids.setdefault(thing.name, len(self.ids) + 1)
            self._early[self._key(other)].append(other)
        waiting = self._early.pop(key)
        if len(waiting) > 1:
            self._early[key] = deque(list(waiting)[1:])
        return waiting[0] if waiting else None

    def _key(self, image: AnnotatedImage) -> str:
        return _stem(image) if self._by_stem else image.file_name


def _worst(changes: list[dict[str, Any]], at_most: int) -> list[dict[str, Any]]:
    """Those that changed the most, of equals the first, once there are more than so many."""
    if at_most > _MOST_NAMED and len(changes) <= at_most:
        return changes
    return sorted(changes, key=lambda change: change["iou"])[:_MOST_NAMED]


def _stem(image: AnnotatedImage) -> str:
    return str(PurePosixPath(image.file_name).with_suffix(""))


def _ids(file: AnnotatedImages) -> dict[str, int]:
    return {str(category["name"]): category["id"] for category in file.categories}


def _compare(report: Fidelity, image: AnnotatedImage, others: Sequence[Annotation], overlaps: array[float]) -> None:
    """Add one image's objects to the report."""
    table = _overlap(image.things, others)
    same = np.array([[a.name == b.name for b in others] for a in image.things]).reshape(table.shape)
    rows, columns = linear_sum_assignment(-(table + _SAME_NAME * same))
    pairs: Mapping[int, int] = {int(r): int(c) for r, c in zip(rows, columns, strict=True) if table[r, c] > 0}
    report.added += len(others) - len(pairs)
    for k, thing in enumerate(image.things):
        report.scores += thing.score is not None
        report.masks += thing.rle is not None
        iou = 0.0
        if k in pairs:
            iou = _found(report, thing, others[pairs[k]], float(table[k, pairs[k]]), overlaps)
        else:
            merged = _swallowed(thing, others)
            report.lost, report.merged = report.lost + (not merged), report.merged + merged
            report.scores_lost += thing.score is not None
        if iou < 1:
            report.changes.append({"file_name": image.file_name, "object": k, "name": thing.name, "iou": iou})


def _found(report: Fidelity, thing: Annotation, other: Annotation, iou: float, overlaps: array[float]) -> float:
    """Add an object that was found again; returns the overlap of the masks, or of the boxes where it had no mask."""
    report.found += 1
    report.renamed += thing.name != other.name
    report.scores_lost += thing.score is not None and thing.score != other.score
    shift = float(np.abs(np.subtract(thing.box, other.box)).max())
    report.box_shift = max(report.box_shift, shift)
    report.boxes_shifted += shift > _SHIFTED
    if thing.rle is None:
        return iou
    if other.rle is None:
        report.boxes_only += 1
        return 0.0
    overlaps.append(iou)
    report.exact += iou == 1
    return iou


def _overlap(things: Sequence[Annotation], others: Sequence[Annotation]) -> FloatArray:
    """IoU (n, m): of masks where both have one, else of boxes; of two empty masks 1."""
    table = np.zeros((len(things), len(others)))
    if not table.size:
        return table
    boxes = [np.array([t.box for t in group]) for group in (things, others)]
    table[:] = compute_box_ious(_xywh(things), _xywh(others))
    flat = (np.diff(boxes[0].reshape(-1, 2, 2), axis=1) == 0).any((1, 2))
    for k in np.flatnonzero(flat):  # boxes of no area overlap nothing, and are known by their place
        moved = np.abs(boxes[0][k] - boxes[1]).max(1)
        table[k] = np.where(moved < _NEAR, 1 / (1 + moved), table[k])
    mine, theirs = (np.array([t.rle is not None for t in group]) for group in (things, others))
    if mine.any() and theirs.any():
        left, right = ([t.rle for t in group if t.rle is not None] for group in (things, others))
        empty = compute_rle_areas(left)[:, None] + compute_rle_areas(right) == 0
        table[np.ix_(mine, theirs)] = compute_rle_ious(left, right) + empty
    return table


def _xywh(things: Sequence[Annotation]) -> FloatArray:
    boxes = np.array([thing.box for thing in things])
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def _swallowed(thing: Annotation, others: Sequence[Annotation]) -> bool:
    """Whether most of a mask lies inside one of the others."""
    masks = [o.rle for o in others if o.rle is not None]
    if thing.rle is None or not masks:
        return False
    return bool(compute_rle_parts([thing.rle], masks).max() > _SWALLOWED)
