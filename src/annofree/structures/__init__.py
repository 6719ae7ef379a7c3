"""The nouns of the house: what flows from one room to the next.

Sizes are (H, W).  Boxes are x0 y0 x1 y1 in float pixels, end-exclusive, so COCO's width is x1 - x0.  Images are uint8
RGB.  Class ids index the vocabulary.  Shapes use one alphabet: B batch, N fragments or detections, K classes,
D embedding, H W pixels, h w feature cells, P prompts, M masks a prompt.

Each is imported when it is first asked for: a vocabulary needs no torch, and a wrong call is refused without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from annofree.ops.rle import RLE
    from annofree.structures.arrays import BoolArray, FloatArray, IntArray
    from annofree.structures.cells import ClueMap, FeatureMap, Fragments
    from annofree.structures.detections import Detections
    from annofree.structures.image import Image
    from annofree.structures.label_map import VOID, LabelMap
    from annofree.structures.vocabulary import BACKGROUND, Classes, Vocabulary

__all__ = [
    "BACKGROUND",
    "RLE",
    "VOID",
    "BoolArray",
    "Classes",
    "ClueMap",
    "Detections",
    "FeatureMap",
    "FloatArray",
    "Fragments",
    "Image",
    "IntArray",
    "LabelMap",
    "Vocabulary",
]

_HOMES = {
    "ops.rle": ("RLE",),
    "structures.arrays": ("BoolArray", "FloatArray", "IntArray"),
    "structures.cells": ("ClueMap", "FeatureMap", "Fragments"),
    "structures.detections": ("Detections",),
    "structures.image": ("Image",),
    "structures.label_map": ("VOID", "LabelMap"),
    "structures.vocabulary": ("BACKGROUND", "Classes", "Vocabulary"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"annofree.{module}"), name)
    raise AttributeError(f"module 'annofree.structures' has no attribute {name!r}")
