"""The nouns of the house: what flows from one room to the next.

Sizes are (H, W).  Boxes are x0 y0 x1 y1 in float pixels, end-exclusive, so COCO's width is x1 - x0.  Images are uint8
RGB.  Class ids index the vocabulary.  Shapes use one alphabet: B batch, N fragments or detections, K classes,
D embedding, H W pixels, h w feature cells, P prompts, M masks a prompt.
"""

from __future__ import annotations

from annofree.ops.rle import RLE
from annofree.structures.arrays import BoolArray, FloatArray, IntArray
from annofree.structures.cells import ClueMap, FeatureMap, Fragments
from annofree.structures.detections import Detections
from annofree.structures.image import Image
from annofree.structures.label_map import VOID, LabelMap
from annofree.structures.vocabulary import Classes, Vocabulary

__all__ = [
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
