"""Everything in an image without a name, as SAM's own generator of masks finds it: a grid of points, what is sure, once each.

    crops of the image -> points -> sure masks -> those whole in their crop -> box NMS -> box NMS over crops -> small regions

N masks, H W pixels.  Boxes are x0 y0 x1 y1 px whose last pixels belong to them, as that generator compares them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torchvision.ops import nms

from annofree.ops.rle import RLE, compute_rle_boxes, decode_rle, encode_rle, encode_rles
from annofree.protocols import Embedding, Masker, SureMasker, SureMasks, Sureness
from annofree.structures import BoolArray, FloatArray, IntArray

__all__ = ["Candidates", "Crop", "draw_candidates", "list_crops", "remove_small_regions"]

_POINTS_AT_ONCE = 64
_EDGE = 20.0  # px within which a box ends with its crop
_EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Crop:
    """A part of an image, ``box`` x0 y0 x1 y1 px, end-exclusive, and the ``layer`` of crops that it belongs to."""

    box: tuple[int, int, int, int]
    layer: int

    @property
    def size(self) -> tuple[int, int]:
        """H, W."""
        return self.box[3] - self.box[1], self.box[2] - self.box[0]

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.box[1], self.box[3]), slice(self.box[0], self.box[2])


@dataclass(frozen=True, eq=False)
class Candidates:
    """Masks of one image as run lengths (N), their ``boxes`` (N, 4), ``quality`` (N), which may be above 1."""

    rles: tuple[RLE, ...]
    boxes: FloatArray
    quality: FloatArray

    @classmethod
    def of(cls, rles: Sequence[RLE], quality: FloatArray) -> Candidates:
        """With tight boxes."""
        return cls(tuple(rles), compute_rle_boxes(rles) - np.array([0, 0, 1, 1], np.float32), quality)

    @classmethod
    def joined(cls, parts: Sequence[Candidates]) -> Candidates:
        """Several of one image, one after the other."""
        rles = tuple(rle for part in parts for rle in part.rles)
        boxes = np.concatenate([np.zeros((0, 4), np.float32), *(part.boxes for part in parts)])
        return cls(rles, boxes, np.concatenate([np.zeros(0, np.float32), *(part.quality for part in parts)]))

    def __len__(self) -> int:
        return len(self.rles)

    def __getitem__(self, rows: IntArray) -> Candidates:
        return Candidates(tuple(self.rles[i] for i in rows), self.boxes[rows], self.quality[rows])

    def suppress(self, scores: FloatArray, iou: float) -> Candidates:
        """Those without a box IoU above ``iou`` with a better one that is kept, by falling scores (N); 1 keeps all."""
        if iou >= 1:
            return self[np.argsort(-scores, kind="stable")]
        return self[nms(torch.from_numpy(self.boxes), torch.from_numpy(scores), iou).numpy()]

    def drop_cut(self, crop: Crop, size: tuple[int, int]) -> Candidates:
        """Without those that end within 20 px of a side of their crop that is no side of the image (H, W)."""
        inner, outer = np.array(crop.box, np.float32), np.array([0, 0, size[1], size[0]], np.float32)
        cut = (np.abs(self.boxes - inner) <= _EDGE) & (np.abs(self.boxes - outer) > _EDGE)
        return self[np.flatnonzero(~cut.any(1))]


def list_crops(size: tuple[int, int], layers: int, overlap: float) -> list[Crop]:
    """The image (H, W) itself, then ``layers`` of crops, in layer k 2^k by 2^k of them, column by column.

    Neighbors share ``overlap`` of the shorter side in the first layer, half of it in the next, and so on.  Of an image of too
    few px for so many crops those that hold none are left out.

    >>> [crop.box for crop in list_crops((10, 20), 1, 0.2)]
    [(0, 0, 20, 10), (0, 0, 11, 6), (0, 4, 11, 10), (9, 0, 20, 6), (9, 4, 20, 10)]
    """
    crops = [Crop((0, 0, size[1], size[0]), 0)]
    for layer in range(1, layers + 1):
        count = 2**layer
        shared = int(overlap * min(size) * (2 / count))
        rows, columns = ([_stretch(k, count, shared, n) for k in range(count)] for n in size)
        crops += [Crop((x0, y0, x1, y1), layer) for x0, x1 in columns for y0, y1 in rows]
    return [crop for crop in crops if min(crop.size) > 0]


def draw_candidates(
    sam: Masker, embedding: Embedding, points: FloatArray, sure: Sureness, crop: Crop, size: tuple[int, int]
) -> Candidates:
    """Sure masks of points (P, 2) x y px in an embedded ``crop``, in their order, on an image of ``size`` (H, W)."""
    parts = []
    for drawn in _iterate_sure(sam, embedding, points, sure):
        masks = drawn.masks
        if crop.size != size:
            masks = np.zeros((len(drawn.masks), *size), bool)
            masks[:, *crop.window] = drawn.masks
        parts.append(Candidates.of(encode_rles(masks), drawn.quality))
    return Candidates.joined(parts)


def remove_small_regions(found: Candidates, area: int, iou: float) -> Candidates:
    """Fill holes of fewer than ``area`` px, then drop as small islands; of masks that become alike, those untouched stay.

    A mask of small islands alone keeps its largest.  Pixels at corners are neighbors.  The order is by quality.
    """
    cleaned, touched = [], np.zeros(len(found), bool)
    for i, rle in enumerate(found.rles):
        mask = decode_rle(rle)
        clean = _keep_large(_fill_small(mask, area), area)
        touched[i] = bool((clean != mask).any())
        cleaned.append(encode_rle(clean) if touched[i] else rle)
    kept = Candidates.of(cleaned, found.quality).suppress(np.float32(1) - touched.astype(np.float32), iou)
    return kept[np.argsort(-kept.quality, kind="stable")]


def _stretch(k: int, count: int, shared: int, length: int) -> tuple[int, int]:
    """Where the k-th of ``count`` stretches of a ``length`` begins and ends."""
    long = -(-(shared * (count - 1) + length) // count)
    return (long - shared) * k, min((long - shared) * k + long, length)


def _iterate_sure(sam: Masker, embedding: Embedding, points: FloatArray, sure: Sureness) -> Iterator[SureMasks]:
    if isinstance(sam, SureMasker):
        yield from sam.iterate_sure_masks(embedding, points, sure)
        return
    for start in range(0, len(points), _POINTS_AT_ONCE):
        drawn = sam.predict_masks(embedding, points=points[start : start + _POINTS_AT_ONCE], multimask=sure.multimask)
        stability = torch.ones_like(drawn.quality) if drawn.stability is None else drawn.stability
        masks, quality = sure.choose_masks(drawn.masks, drawn.quality)
        steady, _ = sure.choose_masks(stability, drawn.quality)
        kept = (sure.pass_stable(steady) & masks.any(2).any(1)).cpu()
        yield SureMasks(masks.cpu()[kept].numpy(), quality.float().cpu()[kept].numpy())


def _fill_small(mask: BoolArray, area: int) -> BoolArray:
    holes, sizes = _label(~mask)
    return np.asarray(mask | (sizes < area)[holes] & (holes > 0), bool)


def _keep_large(mask: BoolArray, area: int) -> BoolArray:
    islands, sizes = _label(mask)
    large = sizes >= area
    if len(sizes) > 1 and not large[1:].any():
        large[1 + sizes[1:].argmax()] = True
    return np.asarray(large[islands] & (islands > 0), bool)


def _label(marked: BoolArray) -> tuple[IntArray, IntArray]:
    """The number of the region of each pixel (H, W), 0 where nothing is marked, and the pixels of each."""
    regions, count = ndimage.label(marked, _EIGHT)
    return np.asarray(regions, np.int64), np.asarray(np.bincount(regions.ravel(), minlength=count + 1), np.int64)
