"""The label maps and panoptic maps of a run: which images have one, and each as segments with names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from annofree.formats.label_maps import CLASSES_FILE, ClassList, read_label_map
from annofree.formats.panoptic import PanopticFile
from annofree.io.coco_stream import stream_coco
from annofree.io.files.paths import confine
from annofree.render.page_maps import Segments
from annofree.runs.store.chunks import Chunks
from annofree.runs.store.counts import ImageCount
from annofree.runs.store.names import ResultName, ResultNames

__all__ = ["count_mapped_images", "list_map_names", "read_labels", "read_panoptic"]


def count_mapped_images(run: Path, shares: Any) -> Iterator[ImageCount]:
    """Yield the images of a run without instances, by its label maps, else by its panoptic maps; their size is (0, 0).

    ``shares`` is what labels/shares.json holds, None where there is none.
    """
    listed = shares.get("pictures") if isinstance(shares, dict) else None
    panoptic = run / "panoptic.json"
    if isinstance(listed, dict):
        named = _results(run, lambda result: result.stem)
        for result in (named.get(stem) or ResultName(stem, stem, stem) for stem in listed):
            yield _image(result, labels=True, panoptic=panoptic.is_file())
    elif panoptic.is_file():
        named = _results(run, lambda result: result.portable)
        stems = (str(row["file_name"]).removesuffix(".png") for kind, row in stream_coco(panoptic) if kind == "images")
        for result in (named.get(stem) or ResultName(stem, stem, stem) for stem in stems):
            yield _image(result, labels=False, panoptic=True)


def _image(result: ResultName, *, labels: bool, panoptic: bool) -> ImageCount:
    overlay = f"overlays-semantic/{result.stem}.jpg" if labels else ""
    return ImageCount(
        result.file_name,
        (0, 0),
        overlay,
        f"labels/{result.stem}.png" if labels else "",
        f"panoptic/{result.portable}.png" if panoptic else "",
    )


def _results(run: Path, key: Callable[[ResultName], str]) -> dict[str, ResultName]:
    """What the results of each image are called, from the list that a run goes on from; empty where that is gone."""
    shards = Chunks(run)
    ids = shards.read_ids() if shards.begun else []
    names = ResultNames(ids)
    return {key(result): result for result in map(names.find_names, ids)}


def list_map_names(run: Path) -> list[str]:
    """Return the names that the maps of a run may have, its background first where it has one."""
    labels, panoptic = run / "labels", run / "panoptic.json"
    names = list(ClassList.read(labels).names) if (labels / CLASSES_FILE).is_file() else []
    if panoptic.is_file():
        names += [str(row["name"]) for kind, row in stream_coco(panoptic) if kind == "categories"]
    return list(dict.fromkeys(names))


def read_labels(run: Path, images: Collection[ImageCount]) -> Mapping[str, Callable[[], Segments]]:
    """Return a reader for the label map of each image that has one, by its file in the run; a reader may raise InputError."""
    places = [p.labels for p in images if p.labels]
    if not places or not (run / "labels" / CLASSES_FILE).is_file():
        return {}
    classes = ClassList.read(run / "labels")
    names = {k + 1: name for k, name in enumerate(classes.names) if k != classes.background}

    def read(place: str) -> Segments:
        return read_label_map(confine(run, place), classes).labels + 1, names

    return {place: _later(read, place) for place in places}


def read_panoptic(run: Path, images: Collection[ImageCount]) -> Mapping[str, Callable[[], Segments]]:
    """Return a reader for the panoptic map of each image that has one, as ``read_labels`` does."""
    path, places = run / "panoptic.json", {p.panoptic for p in images if p.panoptic}
    if not places or not path.is_file():
        return {}
    rows: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    wanted = {place.removeprefix("panoptic/") for place in places}
    for kind, row in stream_coco(path):
        if kind == "categories" or row.get("file_name") in wanted:
            rows.get(kind, []).append(row)
    file = PanopticFile(path, **rows)
    names = {row["id"]: str(row["name"]) for row in file.categories}

    def read(row: Mapping[str, Any]) -> Segments:
        confine(run, f"panoptic/{row['file_name']}")
        return file.read_segments(row), {s["id"]: names[s["category_id"]] for s in row["segments_info"]}

    return {f"panoptic/{row['file_name']}": _later(read, row) for row in file.annotations}


def _later(read: Callable[[Any], Segments], of: Any) -> Callable[[], Segments]:
    return lambda: read(of)
