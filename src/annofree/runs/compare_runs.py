"""The same images under several runs, and under the truth where there is one, side by side on a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from annofree.errors import InputError
from annofree.formats.annotations import Annotation, list_images, list_names
from annofree.formats.coco import CocoFile
from annofree.formats.label_maps import CLASSES_FILE, ClassList, read_label_map
from annofree.ops.rle import compute_rle_boxes, fill_polygons
from annofree.render.label_overlay import draw_label_map
from annofree.render.overlay import draw_overlay
from annofree.render.page_images import Opener
from annofree.render.step_pictures import prepare_canvas
from annofree.render.steps_page import Drawing, Step, write_steps_page
from annofree.runs.store.reader import StoredRun
from annofree.runs.store.summary import RunSummary
from annofree.structures import VOID, Detections, Image, LabelMap

__all__ = ["Comparison", "list_kinds_shown", "read_side", "read_truth", "read_truth_maps", "write_comparison"]

_TOLD = 5  # file names in a line


@dataclass(frozen=True, eq=False)
class Side:
    """A run, or the truth, as a column: its ``label``, the ``names`` it knows, what it has of each image by file name.

    ``listed`` are all its images; ``found`` holds the instances of those that are shown, ``maps`` the file of each label map,
    whose indices ``classes`` explains.  The truth has no scores to tell.
    """

    label: str
    names: tuple[str, ...]
    listed: tuple[str, ...]
    found: dict[str, Detections] = field(default_factory=dict)
    is_truth: bool = False
    maps: dict[str, Path] = field(default_factory=dict)
    classes: ClassList | None = None

    def read(self, name: str) -> Detections | LabelMap | None:
        """What it has of an image; None for nothing known."""
        if self.classes is not None and name in self.maps:
            return read_label_map(self.maps[name], self.classes)
        return self.found.get(name)


@dataclass(frozen=True)
class Comparison:
    """A page of images under several runs."""

    # index.html
    page: Path
    # file names of the images on it
    shown: tuple[str, ...]
    # what is not on it, and why, a line a reason
    left_out: tuple[str, ...]


def list_kinds_shown(run: Path) -> tuple[str, ...]:
    """What a run has that can be shown: instance, semantic, or both; raises InputError where it has neither."""
    kinds = {"instance": run / "annotations.json", "semantic": run / "labels" / CLASSES_FILE}
    has = tuple(kind for kind, file in kinds.items() if file.is_file())
    if not has:
        raise InputError(f"expected instances or label maps in the run {run}, and there are none; run segment for one of them")
    return has


def read_side(run: Path, kind: str = "instance") -> tuple[StoredRun | None, Side]:
    """Read which images a run has instances of, or label maps; raises InputError where it is no run, or has none of these.

    The stored run is what instances are read from.
    """
    if kind == "semantic":
        return None, _read_maps(run)
    stored = StoredRun.read(run, images=run)  # its images are opened elsewhere
    label = _label(run, stored.summary.about, kind)
    return stored, Side(label, stored.names, tuple(image.file_name for image in stored.summary.pictures.values()))


def _read_maps(run: Path) -> Side:
    summary, classes = RunSummary.read(run, best=0), ClassList.read(run / "labels")
    names = tuple(name for k, name in enumerate(classes.names) if k != classes.background)
    maps = {image.file_name: run / image.labels for image in summary.pictures.values() if image.labels}
    return Side(_label(run, summary.about, "semantic"), names, tuple(maps), maps=maps, classes=classes)


def _label(run: Path, about: Mapping[str, Any], kind: str) -> str:
    settings = about.get("settings") or {}
    method = (settings.get("methods") or {}).get(kind)
    return f"{run} ({method}, {settings.get('models')})" if method else str(run)


def read_truth_maps(folder: Path, names: Sequence[str]) -> Side:
    """Lay out a truth of label maps, ID.png with classes.json, by the ``names`` of images, whose endings it has not."""
    classes = ClassList.read(folder)
    own = tuple(name for k, name in enumerate(classes.names) if k != classes.background)
    places = {name: (folder / name).with_suffix(".png") for name in names}
    maps = {name: place for name, place in places.items() if place.is_file()}
    return Side("the truth", own, tuple(maps), is_truth=True, maps=maps, classes=classes)


def read_truth(truth: CocoFile) -> Side:
    """Lay out a checked truth image by image: crowds are left out, and what has no mask is drawn as its box."""
    images = {image.file_name: image for image in list_images(truth)}
    names = list_names(truth)
    found = {}
    for name, image in images.items():
        things = [thing for thing in image.things if not thing.crowd]
        rles = tuple(_draw_mask(thing, image.size) for thing in things)
        ids = np.array([names.index(thing.name) for thing in things], np.int64)
        found[name] = Detections(image.size, names, ids, np.ones(len(ids), np.float32), compute_rle_boxes(rles), rles)
    return Side("the truth", names, tuple(images), found, is_truth=True)


def write_comparison(
    runs: Sequence[tuple[StoredRun | None, Side]], out: Path, *, truth: Side | None, openers: Sequence[Opener], limit: int
) -> Comparison:
    """Write the first ``limit`` images that all ``runs`` have to the page of the folder ``out``.

    ``openers`` open images by file name, the first that can.  Raises InputError where the runs have no image in common, where
    none of those shown can be opened, and where ``out`` holds something else.
    """
    sides = [side for _, side in runs]
    common = _find_common(sides)
    shown = common[:limit]
    for stored, side in runs:
        if stored is not None:
            side.found.update(_read_found(stored, set(shown)))
    left_out = _list_left_out(sides, common, limit, truth)
    columns = [*([truth] if truth is not None else []), *sides]
    names = tuple(dict.fromkeys(name for side in (*sides, *columns) for name in side.names))
    about = [
        f"The first {len(shown)} of {len(common):,} images that all runs have; a name has one color in all of them.",
        *left_out,
    ]
    failed: list[str] = []
    steps = _compare(shown, columns, names, openers, failed)
    page = write_steps_page(out, f"{len(sides)} runs, image by image", about, steps, "annofree compare")
    return Comparison(page, tuple(n for n in shown if n not in failed), (*left_out, *(f"not shown: {n}" for n in failed)))


def _find_common(sides: Sequence[Side]) -> list[str]:
    """The images that all runs have, in the order of the first."""
    others = [set(side.listed) for side in sides[1:]]
    common = [name for name in sides[0].listed if all(name in other for other in others)]
    if not common:
        has = "; ".join(f"{side.label} has {_some(side.listed) or 'none'}" for side in sides)
        raise InputError(f"expected runs of the same images, but no image is in all of them: {has}; name runs of one folder")
    return common


def _list_left_out(sides: Sequence[Side], common: Sequence[str], limit: int, truth: Side | None) -> tuple[str, ...]:
    """What is not shown, a line a reason."""
    known, lines = set(common), []
    for side in sides:
        alone = [name for name in side.listed if name not in known]
        if alone:
            lines.append(f"Left out of {side.label}, for not all runs have them: {len(alone):,} images: {_some(alone)}.")
    if len(common) > limit:
        lines.append(f"Left out for the limit of {limit}: {len(common) - limit:,} images: {_some(common[limit:])}.")
    if truth is not None and (unknown := [name for name in common[:limit] if name not in truth.listed]):
        lines.append(f"The truth does not have {len(unknown):,} images that are shown: {_some(unknown)}.")
    return tuple(lines)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_TOLD]) + (f" and {len(names) - _TOLD:,} more" if len(names) > _TOLD else "")


def _read_found(stored: StoredRun, wanted: Collection[str]) -> Mapping[str, Detections]:
    return {one.file_name: one.found for one in stored.read_images() if one.file_name in wanted}


def _compare(
    shown: Sequence[str], columns: Sequence[Side], names: tuple[str, ...], openers: Sequence[Opener], failed: list[str]
) -> Iterator[Step]:
    """A step an image, of which one is in memory; ``failed`` gets those that cannot be drawn."""
    for name in shown:
        try:
            image = _open(name, openers)
            drawings = [Drawing("the image", prepare_canvas(image))]
            read = ((side, side.read(name)) for side in columns)
            drawings += [_draw(image, side, found, names) for side, found in read if found is not None]
        except InputError as problem:
            failed.append(name)
            if len(failed) == len(shown):
                raise
            yield Step(name, f"It cannot be shown: {problem}.")
            continue
        yield Step(name, "", tuple(drawings))


def _open(name: str, openers: Sequence[Opener]) -> Image:
    problem = InputError(f"the folder of the image {name} is not known any more; name it with --images")
    for opener in openers:
        try:
            return opener(name)
        except InputError as found:
            problem = found
    raise problem


def _draw(image: Image, side: Side, found: Detections | LabelMap, names: tuple[str, ...]) -> Drawing:
    if isinstance(found, LabelMap):
        return _draw_map(image, side, found, names)
    counts = Counter(found.labels.tolist())
    told = ", ".join(f"{count} {name}" for name, count in counts.most_common(_TOLD)) or "nothing"
    told += f" and {len(counts) - _TOLD} more names" if len(counts) > _TOLD else ""
    return Drawing(f"{side.label}: {told}", draw_overlay(image, found.with_names(names), with_scores=not side.is_truth))


def _draw_map(image: Image, side: Side, found: LabelMap, names: tuple[str, ...]) -> Drawing:
    """A label map in the colors that names have on the page, which has no color for a background."""
    if found.labels.shape != image.size:
        raise InputError(
            f"expected a label map of size (H, W) {image.size} for {image.id} in {side.label}, got {found.labels.shape}; "
            "is it of another image?"
        )
    shares = {name: s for name, s in found.compute_shares().items() if name in names}
    most = sorted(shares, key=lambda name: -shares[name])
    told = ", ".join(f"{name} {100 * shares[name]:.0f} %" for name in most[:_TOLD]) or "nothing"
    told += f" and {len(most) - _TOLD} more names" if len(most) > _TOLD else ""
    own = found.background
    place = {name: k for k, name in enumerate(names)}
    to = np.array([*(len(names) if k == own else place[n] for k, n in enumerate(found.names)), VOID], np.int32)
    listed = names if own is None else (*names, found.names[own])
    drawn = LabelMap(to[found.labels], listed, None if own is None else len(names))  # VOID, -1, is the last
    return Drawing(f"{side.label}: {told}", draw_label_map(image, drawn))


def _draw_mask(thing: Annotation, size: tuple[int, int]) -> dict[str, object]:
    x0, y0, x1, y1 = thing.box
    return fill_polygons([[x0, y0, x1 - x0, y1 - y0]], size) if thing.rle is None else thing.rle
