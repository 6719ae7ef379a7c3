"""An auto-annotation function for CVAT: ``cvat-cli task auto-annotate ID --function-module annofree.apps.integrations.cvat``.

``create`` takes what is given with ``-p``; the labels of the task are found by the names of the classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cvat_sdk.auto_annotation as cvat
import numpy as np
import numpy.typing as npt
import PIL.Image
from cvat_sdk.masks import encode_mask

from annofree.apps.integrations.finder import Finder
from annofree.errors import build_unknown_error
from annofree.formats.polygons import simplify_polygons
from annofree.hub.presets import DEFAULT
from annofree.ops.rle import decode_rle
from annofree.structures import Detections

__all__ = ["CvatFunction", "create"]

_SHAPES = ("mask", "rectangle")


class CvatFunction:
    """What CVAT calls: ``spec`` says which labels there are, ``detect`` finds them in an image."""

    def __init__(self, finder: Finder, shape: str) -> None:
        self._finder, self._shape = finder, shape
        names = finder.vocabulary.names
        self.spec = cvat.DetectionFunctionSpec(labels=[cvat.label_spec(name, k, type=shape) for k, name in enumerate(names)])

    def detect(self, context: cvat.DetectionFunctionContext, image: PIL.Image.Image) -> list[Any]:
        """Find the classes in an image: masks, polygons where masks are to be converted, or boxes; with their scores."""
        found = self._finder.find(image)
        found = found[found.scores >= (context.conf_threshold or 0)]
        if self._shape == "rectangle":
            rows = zip(found.class_ids.tolist(), found.boxes.tolist(), found.scores.tolist(), strict=True)
            return [cvat.rectangle(k, box, score=score) for k, box, score in rows]
        return list(_draw_polygons(found) if context.conv_mask_to_poly else _draw_masks(found))


def _list_masks(found: Detections) -> Iterator[tuple[int, npt.NDArray[np.bool_], float]]:
    """Class id, mask (H, W) and score of each detection."""
    yield from zip(found.class_ids.tolist(), map(decode_rle, found.rles), found.scores.tolist(), strict=True)


def _draw_masks(found: Detections) -> Iterator[Any]:
    for k, mask, score in _list_masks(found):
        yield cvat.mask(k, encode_mask(mask), score=score)


def _draw_polygons(found: Detections) -> Iterator[Any]:
    """One polygon a part of a mask, those of one thing in a group."""
    for number, (k, mask, score) in enumerate(_list_masks(found), 1):
        parts = simplify_polygons(mask)
        group = {"group": number} if len(parts) > 1 else {}
        for points in parts:
            yield cvat.polygon(k, points.ravel().tolist(), score=score, **group)


def create(
    classes: str,
    preset: str = DEFAULT,
    method: str | None = None,
    shape: str = "mask",
    device: str = "auto",
    policy: str = "answer",
    min_score: float = 0.0,
) -> CvatFunction:
    """Make the function: ``classes`` as text such as "dog, cat: kitten | tabby", ``shape`` mask or rectangle.

    Raises InputError for names, a preset, a method or a shape that cannot be.
    """
    if shape not in _SHAPES:
        raise build_unknown_error("shape", shape, _SHAPES)
    return CvatFunction(Finder(classes, preset, method=method, device=device, policy=policy, min_score=min_score), shape)
