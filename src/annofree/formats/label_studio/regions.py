"""Regions of Label Studio: brushes in its own run lengths, rectangles and polygons in percent of the image."""

from __future__ import annotations

from typing import Any

import numpy as np

from annofree.formats.annotations import Annotation
from annofree.formats.passed_over import PassedOver, Place
from annofree.formats.polygons import fill_to_rle, simplify_polygons
from annofree.formats.values import order_box, read_numbers, read_objects
from annofree.ops.brush import decode_brush, encode_brush
from annofree.ops.rle import decode_rle

__all__ = ["build_region", "build_regions", "describe_problem", "draw_region", "label_regions", "list_regions"]

# Answers about a whole image, which are no regions of it.
_NO_REGIONS = ("choices", "taxonomy", "textarea", "rating", "number", "datetime", "pairwise", "ranker", "relation")
_BARE = ("rectangle", "polygon", "brush", "ellipse", "keypoint", "vector")  # regions whose labels come apart from them
_FEWEST = 3  # corners


def build_region(
    name: str,
    kind: str,
    thing: Annotation,
    size: tuple[int, int],
    control: str,
    image: str,
    value: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Build the region ``name`` of an annotation: ``kind`` is ``brushlabels`` or ``rectanglelabels``, or any with a ``value``.

    ``control`` and ``image`` are what the labeling interface calls the tag with the labels and the tag with the image.
    """
    result = {
        "id": name,
        "type": kind,
        "from_name": control,
        "to_name": image,
        "original_width": size[1],
        "original_height": size[0],
        "image_rotation": 0,
        "value": {**(value or _value(thing, size, kind)), kind: [thing.name]},
    }
    return result if thing.score is None else result | {"score": thing.score}


def build_regions(
    name: str, kind: str, thing: Annotation, size: tuple[int, int], control: str, image: str
) -> list[dict[str, Any]]:
    """Build the regions of an annotation: one, or as ``polygonlabels`` one for each of its parts, simplified to a pixel."""
    if kind != "polygonlabels":
        return [build_region(name, kind, thing, size, control, image)]
    scale = np.array([100 / size[1], 100 / size[0]])
    rings = [np.reshape(_corners(thing), (4, 2))] if thing.rle is None else simplify_polygons(decode_rle(thing.rle))
    values = [{"points": (ring * scale).tolist(), "closed": True} for ring in rings]
    return [
        build_region(name if k == 1 else f"{name}-{k}", kind, thing, size, control, image, value)
        for k, value in enumerate(values, 1)
    ]


def _corners(thing: Annotation) -> list[float]:
    x0, y0, x1, y1 = thing.box
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def _value(thing: Annotation, size: tuple[int, int], kind: str) -> dict[str, Any]:
    if thing.rle is not None and kind == "brushlabels":
        return {"format": "rle", "rle": encode_brush(decode_rle(thing.rle))}
    x0, y0, x1, y1 = thing.box
    across, down = 100 / size[1], 100 / size[0]
    return {"x": x0 * across, "y": y0 * down, "width": (x1 - x0) * across, "height": (y1 - y0) * down, "rotation": 0}


def list_regions(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """List the regions of an answer to a task, without what is told of the whole image."""
    return [one for one in read_objects(answer.get("result"), "result") if one.get("type") not in _NO_REGIONS]


def label_regions(regions: list[dict[str, Any]]) -> list[tuple[dict[str, Any], list[str]]]:
    """Each region with its labels, which may come apart from it, in a result of type ``labels`` and the same id."""
    shapes = {one["id"] for one in regions if one.get("type") in _BARE and "id" in one}
    apart: dict[Any, list[str]] = {}
    for one in regions:
        if one.get("type") == "labels" and one.get("id") in shapes:
            apart.setdefault(one["id"], []).extend(_list_labels(one))
    alone = [one for one in regions if not (one.get("type") == "labels" and one.get("id") in shapes)]
    return [(one, apart.get(one.get("id"), []) if one.get("type") in _BARE else _list_labels(one)) for one in alone]


def _list_labels(region: dict[str, Any]) -> list[str]:
    value = region.get("value") or {}
    names = value.get(region.get("type")) or value.get("labels") or []
    return [str(name).strip() for name in (names if isinstance(names, list) else [names])]


def draw_region(
    region: dict[str, Any], name: str, size: tuple[int, int], passed: PassedOver, where: Place
) -> Annotation | None:
    """The annotation of a region, whose form its value tells, None where it has no area.

    Raises ValueError for a form that has no mask and no box.
    """
    value, score = region["value"], region.get("score")
    if value.get("rotation") or region.get("image_rotation"):
        raise ValueError(f"a turned region of type {region['type']}; expected upright ones")
    if score is not None:
        (score,) = read_numbers([score], "a score")
    if "rle" in value:
        return Annotation.of_mask(name, decode_brush(value["rle"], size), score)
    across, down = size[1] / 100, size[0] / 100
    if "points" in value and len(value["points"]) < _FEWEST:
        passed.note(*where, f"a polygon of {len(value['points'])} points, which has no area")
        return None
    if "points" in value and "vertices" not in value:
        points = np.reshape(read_numbers([v for x, y in value["points"] for v in (x, y)], "points"), (-1, 2))
        return Annotation.of_mask(name, decode_rle(fill_to_rle([points * (across, down)], size)), score)
    if not {"x", "y", "width", "height"} <= value.keys() or "keypoint" in region["type"]:
        raise ValueError(f"a region of type {region['type']}; expected brushes, rectangles and polygons")
    x, y, width, height = read_numbers((value[key] for key in ("x", "y", "width", "height")), "a rectangle")
    corners = (x * across, y * down, x * across + width * across, y * down + height * down)
    return Annotation(name, order_box(corners, passed, where), None, score)


def describe_problem(problem: Exception) -> str:
    """Say in a line why something could not be read."""
    return f"no {problem} in it" if isinstance(problem, KeyError) else " ".join(str(problem).split())
