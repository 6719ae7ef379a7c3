"""What was found as regions of a task, and the points and boxes that a person draws as a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from annofree.apps.web.label_studio.labeling import Control, Labeling
from annofree.errors import InputError
from annofree.formats.annotations import Annotation
from annofree.formats.label_studio.regions import build_regions, describe_problem, draw_region, label_regions, list_regions
from annofree.formats.passed_over import PassedOver
from annofree.formats.values import read_numbers, read_objects, read_size
from annofree.structures import Detections

__all__ = ["Prompt", "build_result", "list_found", "read_annotations", "read_prompt"]

Region = dict[str, Any]


@dataclass(frozen=True)
class Prompt:
    """What a person points at: ``points`` x y and 1 or 0 (on the thing, or off it), a ``box`` x0 y0 x1 y1, in px of ``size``.

    ``label`` is what the thing is to be labeled, None where nothing is said.
    """

    points: tuple[tuple[float, float, int], ...]
    box: tuple[float, float, float, float] | None
    label: str | None
    size: tuple[int, int]


def list_found(found: Detections, labeling: Labeling) -> list[Annotation]:
    """List detections as annotations under the labels of the interface."""
    rows = zip(found.class_ids.tolist(), found.boxes.tolist(), found.rles, found.scores.tolist(), strict=True)
    return [Annotation(labeling.labels[k], (b[0], b[1], b[2], b[3]), rle, score) for k, b, rle, score in rows]


def build_result(things: list[Annotation], labeling: Labeling, size: tuple[int, int]) -> list[Region]:
    """Build the regions of annotations, each by the tag that has its label."""
    result: list[Region] = []
    controls = dict(zip(labeling.labels, labeling.controls, strict=True))
    for k, thing in enumerate(things, 1):
        control = controls[thing.name]
        kind = control.kind if control.labels is None else control.kind + "labels"
        for region in build_regions(f"annofree-{k}", kind, thing, size, control.name, control.image):
            result += [region] if control.labels is None else _part(region, kind, control)
    return result


def _part(region: Region, kind: str, control: Control) -> list[Region]:
    """A region and its label as two results of one id, as a shape and a ``Labels`` tag give them."""
    value = {key: one for key, one in region["value"].items() if key != kind}
    shape = region | {"type": control.kind, "value": value}
    return [shape, region | {"type": "labels", "from_name": control.labels, "value": value | {"labels": region["value"][kind]}}]


def read_prompt(context: Mapping[str, Any]) -> Prompt:
    """Read the key points and rectangles of an interactive question; raises InputError where there are none.

    Of several rectangles the last counts, for a prompt has one box.
    """
    points: list[tuple[float, float, int]] = []
    box, label, size = None, None, (0, 0)
    try:
        for region, names in label_regions(read_objects(context.get("result"), "result")):
            kind = str(region.get("type"))
            if not kind.startswith(("keypoint", "rectangle")):
                continue
            size = read_size(region.get("original_height"), region.get("original_width"), "the prompt")
            corners = _read_corners(region["value"], kind, size)
            label = names[0] if names else label
            if kind.startswith("rectangle"):
                box = corners
            else:
                points.append((*corners[:2], int(region.get("is_positive") not in (0, False, "0"))))
    except (ValueError, TypeError, KeyError, AttributeError) as problem:
        raise InputError(
            f"expected key points or a rectangle as Label Studio draws them, got {describe_problem(problem)}"
        ) from None
    if not points and box is None:
        raise InputError("expected key points or a rectangle to draw a mask by, got neither; choose one under Auto-Annotation")
    return Prompt(tuple(points), box, label, size)


def _read_corners(value: Mapping[str, Any], kind: str, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """x0 y0 x1 y1 px of a region in percent; a key point is its first corner."""
    if value.get("rotation"):
        raise ValueError("a turned rectangle")
    keys = ("x", "y", "width", "height") if kind.startswith("rectangle") else ("x", "y")
    x, y, width, height = (*read_numbers((value[key] for key in keys), f"a {kind}"), 0.0, 0.0)[:4]
    across, down = size[1] / 100, size[0] / 100
    xs, ys = sorted((x * across, (x + width) * across)), sorted((y * down, (y + height) * down))
    return max(0.0, xs[0]), max(0.0, ys[0]), min(float(size[1]), xs[1]), min(float(size[0]), ys[1])


def read_annotations(answer: Mapping[str, Any], size: tuple[int, int], passed: PassedOver) -> list[Annotation]:
    """Read the regions of a submitted annotation of an image of ``size`` (H, W).

    What is no brush, polygon or rectangle, or of an image of another size, is refused in ``passed``.
    """
    things: list[Annotation] = []
    try:
        regions = label_regions(list_regions(dict(answer)))
    except (ValueError, TypeError, AttributeError) as problem:
        raise InputError(f"expected an annotation whose result is a list of regions, got {describe_problem(problem)}") from None
    for k, (region, names) in enumerate(regions, 1):
        place = ("Label Studio", f"annotation {answer.get('id', '?')}, region {k}")
        try:
            said = read_size(region.get("original_height"), region.get("original_width"), place[1])
            if said != size or not names:
                raise ValueError(
                    "a region without a label" if not names else f"a region of an image of {said}, which is {size}"
                )
            thing = draw_region(region, names[0], size, passed, place)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as problem:
            passed.refuse(*place, describe_problem(problem))
            continue
        things += [] if thing is None else [thing]
    return things
