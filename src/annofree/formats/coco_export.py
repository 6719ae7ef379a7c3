"""COCO instances: masks as compressed RLE or polygons; scores and ids are kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from annofree.formats.annotations import AnnotatedImage, AnnotatedImages, Annotation, list_images
from annofree.formats.coco import CocoFile
from annofree.formats.coco_annotations import CocoChecks, read_annotated_images
from annofree.formats.passed_over import PassedOver
from annofree.formats.polygons import trace_polygons
from annofree.io.json_stream import write_lists
from annofree.ops.rle import compute_rle_area, decode_rle, to_json_rle

__all__ = ["ANNOTATIONS", "read_coco", "stream_annotations", "write_coco", "write_coco_polygons"]

ANNOTATIONS = "annotations.json"


def write_coco(images: AnnotatedImages, out: Path) -> None:
    """Write ``annotations.json`` with masks as compressed run lengths, counts as text."""
    _write(images, out, polygons=False)


def write_coco_polygons(images: AnnotatedImages, out: Path) -> None:
    """Write ``annotations.json`` with masks as polygons, one per connected part, with bridged holes; crowds stay RLE.

    Polygons run along pixel edges, so COCO's own rasterizer reproduces the exact mask, including holes.
    """
    _write(images, out, polygons=True)


def _write(images: AnnotatedImages, out: Path, polygons: bool) -> None:
    """Images and annotations keep their ids and other fields; missing ids are numbered from 1."""
    ids = {category["name"]: category["id"] for category in images.categories}
    lists: dict[str, Iterable[Any]] = {
        "images": (_image(image, number) for number, image in enumerate(images, 1)),
        "categories": [{"supercategory": "thing", **category} for category in images.categories],
        "annotations": _annotations(images, ids, polygons),
    }
    write_lists(out / ANNOTATIONS, lists, images.info)


_PLACES = ("overlay", "labels", "panoptic")  # of files in a run's folder, which do not come along


def _image(picture: AnnotatedImage, number: int) -> dict[str, Any]:
    row = {k: v for k, v in (picture.row or {}).items() if k not in _PLACES}
    named = {"file_name": picture.file_name, "height": picture.size[0], "width": picture.size[1]}
    return {"id": number, **row, **named}


def _annotations(images: AnnotatedImages, ids: Mapping[str, Any], polygons: bool) -> Iterator[dict[str, Any]]:
    number = 0
    for at, image in enumerate(images, 1):
        for thing in image.things:
            number += 1
            image_id = (image.row or {}).get("id", at)
            own = {"id": number, "image_id": image_id, "category_id": ids.get(thing.name)}
            own |= {} if thing.score is None else {"score": thing.score}
            yield _row(own | dict(thing.row or {}), thing, polygons)


def _row(row: dict[str, Any], thing: Annotation, polygons: bool) -> dict[str, Any]:
    """An annotation with its mask re-encoded; keypoints and other fields are kept."""
    x0, y0, x1, y1 = thing.box
    row |= {"bbox": row.get("bbox") or [x0, y0, x1 - x0, y1 - y0], "iscrowd": int(thing.crowd), "segmentation": []}
    if thing.rle is None:
        return {"area": (x1 - x0) * (y1 - y0)} | row
    if polygons and not thing.crowd:
        row["segmentation"] = [ring.ravel().tolist() for ring in trace_polygons(decode_rle(thing.rle))]
    else:
        row["segmentation"] = to_json_rle(thing.rle)
    return {"area": compute_rle_area(thing.rle)} | row


def read_coco(path: Path, images: Path | None = None, passed: PassedOver | None = None) -> CocoFile:
    """Read a COCO JSON, or ``annotations.json`` of a folder, its rows checked; ``list_images`` reads the masks in it.

    ``images`` is the folder of the images, for sizes that the file lacks.  Raises InputError for rows that cannot be read.
    """
    place, passed = path / ANNOTATIONS if path.is_dir() else path, passed or PassedOver()
    file = CocoChecks(place, passed, images).check_file(CocoFile.read(place))
    passed.check()
    list_images(file)  # raises for masks that cannot be drawn
    return file


def stream_annotations(path: Path, images: Path | None = None, passed: PassedOver | None = None) -> AnnotatedImages:
    """Read what was written here, image by image."""
    return read_annotated_images(path / ANNOTATIONS if path.is_dir() else path)
