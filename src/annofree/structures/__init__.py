"""The nouns of the house: what flows from one room to the next.

Sizes are (H, W).  Boxes are x0 y0 x1 y1 in float pixels, end-exclusive, so COCO's width is x1 - x0.  Images are uint8
RGB.  Class ids index the vocabulary.  Shapes use one alphabet: B batch, N fragments or detections, K classes,
D embedding, H W pixels, h w feature cells, P prompts, M masks a prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from annofree.structures.arrays import RLE, BoolArray, FloatArray, IntArray
from annofree.structures.detections import Detections
from annofree.structures.image import Image
from annofree.structures.label_map import VOID, LabelMap
from annofree.structures.vocabulary import Vocabulary

if TYPE_CHECKING:
    from annofree.structures.cells import ClueMap, FeatureMap, Fragments

__all__ = [
    "RLE",
    "VOID",
    "BoolArray",
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

_OF_TENSORS = ("ClueMap", "FeatureMap", "Fragments")


def __getattr__(name: str) -> Any:
    """Import what holds tensors when it is first asked for: files are read, and wrong calls refused, without torch."""
    if name in _OF_TENSORS:
        from annofree.structures import cells

        return getattr(cells, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
