"""Things and stuff in one map, in which every pixel belongs to one segment or to none.

The rule is the simple one of Kirillov et al., Panoptic Segmentation, CVPR 2019, section 7: from the strongest instance down,
each takes the pixels that are still free, or is dropped if too few are; stuff takes what the things leave.  H W pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from annofree.errors import InputError, build_unknown_error
from annofree.ops.rle import compute_rle_parts
from annofree.structures import Detections, LabelMap

__all__ = ["PanopticMap", "PanopticSettings", "Segment", "merge_panoptic"]

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class PanopticSettings:
    """Who gets a pixel.  Raises InputError for parts outside of 0 .. 1 and for fewer than 0 px."""

    # an instance is dropped, and its pixels are free again, if less than this part of it is not under others; 0.5 as in the
    # reference implementation of the paper (Kirillov et al., CVPR 2019)
    min_visible: float = 0.5
    # an instance of which more than this part lies inside a larger, stronger one is put above it, such as the tie on a person;
    # ours, and 1 never does
    contained_above: float = 1.0
    # stuff of fewer px becomes void; the reference takes 4096 for images of COCO's size, 0 keeps all
    min_stuff: int = 0

    def __post_init__(self) -> None:
        for name in ("min_visible", "contained_above"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"expected {name} from 0 to 1, got {getattr(self, name)}")
        if self.min_stuff < 0:
            raise InputError(f"expected min_stuff in px, 0 or more, got {self.min_stuff}")


@dataclass(frozen=True)
class Segment:
    """One segment: its ``id`` in the map, ``class_id`` into the names, whether it ``is_thing``, the ``score`` of its instance
    (None for stuff), the visible ``area`` in px, and the tight ``box`` x0 y0 x1 y1 px, end-exclusive, around that.
    """

    id: int
    class_id: int
    is_thing: bool
    score: float | None
    area: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class PanopticMap:
    """Every pixel's segment: ``segments`` (H, W) int32 holds the ids of ``infos``, 0 for void; ``names`` of the classes.

    Raises InputError when the ids of the map and of ``infos`` are not the same.
    """

    segments: Ids
    infos: tuple[Segment, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        there, said = set(np.unique(self.segments).tolist()) - {0}, [info.id for info in self.infos]
        if there != set(said) or len(said) != len(there):
            raise InputError(f"expected the ids of the map in infos, each once, got {sorted(there)} and {sorted(said)}")

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.segments.shape[0], self.segments.shape[1]

    def to_coco(self, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Return COCO's segments_info; categories are numbered from 1 in the order of the names unless given."""
        numbers = category_ids or range(1, len(self.names) + 1)
        return [
            {
                "id": info.id,
                "category_id": numbers[info.class_id],
                "area": info.area,
                "bbox": [info.box[0], info.box[1], info.box[2] - info.box[0], info.box[3] - info.box[1]],
                "iscrowd": 0,
            }
            | ({} if info.score is None else {"score": info.score})
            for info in self.infos
        ]

    @classmethod
    def from_coco(
        cls, segments: Ids, rows: Sequence[Mapping[str, Any]], categories: Sequence[Mapping[str, Any]]
    ) -> PanopticMap:
        """Build from a map (H, W), COCO's segments_info and COCO's categories; areas and boxes are measured anew."""
        place = {category["id"]: k for k, category in enumerate(categories)}
        said = {row["id"]: (place[row["category_id"]], row.get("score")) for row in rows}
        infos = tuple(
            Segment(id_, said[id_][0], bool(categories[said[id_][0]]["isthing"]), said[id_][1], area, box)
            for id_, area, box in _measured(segments)
            if id_ in said
        )
        return cls(segments, infos, tuple(category["name"] for category in categories))


def merge_panoptic(
    detections: Detections,
    labels: LabelMap,
    settings: PanopticSettings | None = None,
    *,
    stuff: Collection[str] | None = None,
) -> PanopticMap:
    """Join the things of ``detections`` and the stuff of ``labels`` into one map.

    ``stuff`` says which names of ``labels`` are stuff: unless given, all that are no names of ``detections``, but never the
    background.  Pixels of ``labels`` that name anything else are void where no instance is; detections of stuff are left out.
    A class of stuff is one segment.  Ids count from 1, things first, from the strongest down, then stuff in the order of its
    names; the names are those of ``detections``, then those of the stuff.

    Raises InputError for two sizes, and for stuff that ``labels`` does not name.

    >>> dogs = Detections.from_masks(np.array([[[1, 1, 0, 0]], [[1, 1, 1, 0]]], bool), [0, 0], [0.9, 0.8], ["dog"])
    >>> ground = LabelMap(np.array([[0, 0, 1, 1]], np.int32), ("dog", "grass"))
    >>> found = merge_panoptic(dogs, ground)
    >>> found.segments.tolist(), [found.names[info.class_id] for info in found.infos]
    ([[1, 1, 2, 2]], ['dog', 'grass'])
    """
    if detections.size != labels.size:
        raise InputError(f"expected detections and labels of one size, got {detections.size} and {labels.size}")
    settings = settings or PanopticSettings()
    grounds = _stuff(detections, labels, stuff)
    things = detections[np.array([name not in grounds for name in detections.labels], bool)]
    things = things[np.argsort(-things.scores, kind="stable")]
    names = (*detections.names, *(name for name in grounds if name not in detections.names))
    segments, kept = _paint_things(things, settings)
    about: list[tuple[int, bool, float | None]] = [(int(things.class_ids[i]), True, float(things.scores[i])) for i in kept]
    about += [(names.index(name), False, None) for name in _paint_stuff(segments, labels, grounds, len(kept), settings)]
    infos = (Segment(id_, *row, area, box) for row, (id_, area, box) in zip(about, _measured(segments), strict=True))
    return PanopticMap(segments, tuple(infos), names)


def _stuff(detections: Detections, labels: LabelMap, stuff: Collection[str] | None) -> list[str]:
    """The names of ``labels`` that are stuff, in their order."""
    known = [name for k, name in enumerate(labels.names) if k != labels.background]
    if stuff is None:
        return [name for name in known if name not in detections.names]
    for name in stuff:
        if name not in known:
            raise build_unknown_error("stuff", name, known)
    return [name for name in known if name in stuff]


def _paint_things(things: Detections, settings: PanopticSettings) -> tuple[Ids, list[int]]:
    """Paint instances, strongest first, into an empty map; returns it with ids from 1, and which instances it shows."""
    painted = np.zeros(things.size, np.int32)
    for i in _from_the_top(things, settings.contained_above):
        mask = things[i : i + 1].masks[0]
        visible = mask & (painted == 0)
        if visible.any() and visible.sum() >= settings.min_visible * mask.sum():
            painted[visible] = i + 1
    shown, segments = np.unique(painted, return_inverse=True)
    has_void = int(shown[0] == 0)
    ids = segments.reshape(painted.shape).astype(np.int32) + (1 - has_void)
    return ids, [int(i) - 1 for i in shown[has_void:]]


def _from_the_top(things: Detections, contained_above: float) -> list[int]:
    """Order instances, given strongest first, such that each lies under the ones before it.

    A contained one goes right above the topmost of those that contain it, whatever else it then lies above.
    """
    if contained_above >= 1:
        return list(range(len(things)))
    areas = things.areas
    within = (compute_rle_parts(things.rles, things.rles) > contained_above) & (areas[:, None] < areas[None])
    order: list[int] = []
    for i in range(len(things)):
        order.insert(next((at for at, other in enumerate(order) if within[i, other]), len(order)), i)
    return order


def _paint_stuff(segments: Ids, labels: LabelMap, names: Sequence[str], last: int, settings: PanopticSettings) -> list[str]:
    """Paint stuff where ``segments`` is still free, with ids after ``last``; returns the names that it now shows."""
    shown: list[str] = []
    for name in names:
        visible = (labels.labels == labels.names.index(name)) & (segments == 0)
        if visible.sum() >= max(1, settings.min_stuff):
            shown.append(name)
            segments[visible] = last + len(shown)
    return shown


def _measured(segments: Ids) -> list[tuple[int, int, tuple[int, int, int, int]]]:
    """Id, area and tight box of each segment, by id."""
    ids, compact, areas = np.unique(segments, return_inverse=True, return_counts=True)
    places = ndimage.find_objects(compact.reshape(segments.shape) + 1)
    rows = zip(ids.tolist(), areas.tolist(), places, strict=True)
    return [(id_, area, (x.start, y.start, x.stop, y.stop)) for id_, area, (y, x) in rows if id_]
