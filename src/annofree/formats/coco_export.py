"""COCO instances for others to load: masks as compressed run lengths or as polygons, scores and ids kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faster_coco_eval import mask as coco_mask

from annofree.formats.coco import CocoFile
from annofree.formats.pictures import Picture, Thing, mask_of, pictures_of
from annofree.formats.polygons import part_polygons

__all__ = ["ANNOTATIONS", "read_coco", "write_coco", "write_coco_polygons"]

ANNOTATIONS = "annotations.json"


def write_coco(file: CocoFile, out: Path) -> None:
    """Write ``annotations.json`` with masks as compressed run lengths, counts as text."""
    _written(file, pictures_of(file), polygons=False).write(out / ANNOTATIONS)


def write_coco_polygons(file: CocoFile, out: Path) -> None:
    """Write ``annotations.json`` with masks as polygons, one a connected part, holes bridged; crowds stay run lengths.

    Polygons run along pixel edges, so that COCO's own rasteriser gives back the very mask, holes included.
    """
    _written(file, pictures_of(file), polygons=True).write(out / ANNOTATIONS)


def _written(file: CocoFile, pictures: list[Picture], polygons: bool) -> CocoFile:
    things = {image["id"]: iter(p.things) for image, p in zip(file.images, pictures, strict=True)}
    rows = [_row(dict(row), next(things[row["image_id"]]), polygons) for row in file.annotations]
    categories = [{"supercategory": "thing", **category} for category in file.categories]
    images = [{k: v for k, v in image.items() if k not in _PLACES} for image in file.images]
    return CocoFile(images, categories, rows, file.info)


_PLACES = ("overlay", "labels", "panoptic")  # of files in a run's folder, which do not come along


def _row(row: dict[str, Any], thing: Thing, polygons: bool) -> dict[str, Any]:
    """An annotation with its mask written anew; keypoints and whatever else it has stay."""
    x0, y0, x1, y1 = thing.box
    row |= {"bbox": row.get("bbox") or [x0, y0, x1 - x0, y1 - y0], "iscrowd": int(thing.crowd), "segmentation": []}
    if thing.rle is None:
        return {"area": (x1 - x0) * (y1 - y0)} | row
    if polygons and not thing.crowd:
        row["segmentation"] = [ring.ravel().tolist() for ring in part_polygons(mask_of(thing.rle))]
    else:
        row["segmentation"] = {"size": list(thing.rle["size"]), "counts": thing.rle["counts"].decode("ascii")}
    return {"area": int(coco_mask.area([thing.rle])[0])} | row


def read_coco(path: Path, images: Path | None = None) -> CocoFile:
    """Read a COCO JSON, or ``annotations.json`` of a folder; ``pictures_of`` reads all three kinds of masks in it."""
    file = CocoFile.read(path / ANNOTATIONS if path.is_dir() else path)
    pictures_of(file)  # raises for what the file says of no picture or category
    return file
