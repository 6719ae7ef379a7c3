"""Naming masks by competition, and how likely each is right.

Every candidate is named again: all names asked for, and distractors, compete for what CLIP sees of it.  Where a distractor
wins, there is nothing to tell.  What speaks for a candidate is a small vector of signals, and a logistic of them, fitted on
scenes whose truth is known, is the probability that mask and name are right.

N candidates, K names asked for, R rows that compete (the K names, then distractors), S signals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from annofree.errors import InputError, build_unknown_error
from annofree.ops.boxes import compute_tight_boxes
from annofree.ops.rle import compute_rle_areas, compute_rle_boxes, compute_rle_ious, compute_rle_parts
from annofree.structures import RLE, BoolArray, FloatArray, Image, IntArray

__all__ = ["SIGNALS", "Calibration", "Naming", "compute_signals", "measure_edge_support", "measure_geometry", "pick_best_rows"]

SIGNALS = (
    "share",  # log of the softmax share of the best row
    "likeness",  # ten times the cosine with the best row
    "presence",  # how likely the name is in the image at all, 0 .. 1
    "quality",  # the masker's or the method's own score, 0 .. 1
    "stability",  # SAM's stability, 0 .. 1
    "area",  # log of the part of the image that it covers
    "area2",  # the square of that
    "compactness",  # part of its box that it fills
    "edge",  # whether it touches the edge of the image
    "agreement",  # log of one more than the candidates that overlap it by an IoU of 0.7
    "holds",  # log of one more than the smaller ones that lie in it by 0.8
    "held",  # log of one more than the larger ones that it lies in by 0.8
    "detector",  # whether a trained detector found it
    "detector_score",  # its score there, 0 where another proposer drew it
    "boundary",  # part of its contour that lies on an edge of the image
)
"""What a logistic may weigh, in order."""

_GEOMETRY = SIGNALS[5:12]
_SAME, _INSIDE, _SMALLER = 0.7, 0.8, 0.7
_TINY = 1e-4
_EDGE = 0.25  # of the gradient that 5 % of the image exceed, from which a pixel is on an edge


@dataclass(frozen=True)
class Naming:
    """How names compete: the softmax over rows of ``scale`` times the cosines; CLIP's own logit scale is 100."""

    # what cosines are multiplied by before the softmax; released CLIPs learned 100
    scale: float = 100.0

    def compute_shares(self, features: Tensor, words: Tensor) -> Tensor:
        """The share of each row (N, R) for features (N, D) and unit words (R, D)."""
        return (self.scale * features @ words.T).softmax(1)


def pick_best_rows(shares: Tensor) -> IntArray:
    """The best row of each candidate, (N), by its shares (N, R).

    >>> pick_best_rows(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])).tolist()
    [0, 2]
    """
    return shares.argmax(1).cpu().numpy().astype(np.int64)


def measure_geometry(rles: Sequence[RLE], size: tuple[int, int]) -> FloatArray:
    """The signals of masks that hang on no name, from ``area`` on, (N, 7) float32, of an image of ``size`` (H, W)."""
    if not rles:
        return np.zeros((0, len(_GEOMETRY)), np.float32)
    area = compute_rle_areas(rles).astype(np.float64)
    x0, y0, x1, y1 = compute_rle_boxes(rles).astype(np.float64).T
    edge = (x0 <= 1) | (y0 <= 1) | (x1 >= size[1] - 1) | (y1 >= size[0] - 1)
    part = compute_rle_parts(rles, rles)
    agreement = (compute_rle_ious(rles, rles) > _SAME).sum(1) - 1
    smaller = area[None] < _SMALLER * area[:, None]
    holds = ((part.T > _INSIDE) & smaller).sum(1)
    held = ((part > _INSIDE) & smaller.T).sum(1)
    share = np.log(area / (size[0] * size[1]))
    columns = (
        share,
        share**2,
        area / np.maximum((x1 - x0) * (y1 - y0), 1),
        edge,
        np.log1p(agreement),
        np.log1p(holds),
        np.log1p(held),
    )
    return np.stack(columns, 1).astype(np.float32)


def measure_edge_support(image: Image, masks: BoolArray) -> FloatArray:
    """The part of the contour of each mask (N, H, W) that lies on an edge of the image, (N) float32 in 0 .. 1.

    A thing ends where the image changes; a part of one, or two that lie together, do not everywhere.  The change is the norm of
    Sobel's gradient over all channels, smoothed by one pixel, and one pixel beside the contour counts as on it.

    >>> pixels = np.zeros((20, 20, 3), np.uint8)
    >>> pixels[5:15, 5:15] = 255
    >>> square, half = (pixels[..., 0] > 0), np.zeros((20, 20), bool)
    >>> half[5:15, 5:10] = True
    >>> [round(float(part), 2) for part in measure_edge_support(Image(pixels), np.stack([square, half]))]
    [1.0, 0.85]
    """
    smooth = ndimage.gaussian_filter(image.pixels.astype(np.float32), (1, 1, 0))
    change = np.sqrt(sum((ndimage.sobel(smooth, axis) ** 2).sum(2) for axis in (0, 1)))
    edges = ndimage.maximum_filter(change, 3) > _EDGE * max(float(np.percentile(change, 95)), _TINY)
    parts = np.zeros(len(masks), np.float32)
    for k, (mask, (x0, y0, x1, y1)) in enumerate(zip(masks, compute_tight_boxes(masks).astype(int).tolist(), strict=True)):
        around = slice(max(0, y0 - 1), y1 + 1), slice(max(0, x0 - 1), x1 + 1)
        contour = mask[around] & ~ndimage.binary_erosion(mask[around], border_value=1)  # the image's border is no contour
        parts[k] = edges[around][contour].mean() if contour.any() else 0.0
    return parts


def compute_signals(
    features: Tensor, words: Tensor, shares: Tensor, presence: Tensor, drawn: FloatArray, shape: FloatArray
) -> FloatArray:
    """All signals (N, S) of candidates, each for its best row.

    ``presence`` (R); ``drawn`` (N, 2), quality and stability, or (N, 5) with whether a detector found it, its score there, and
    the ``boundary``; ``shape`` (N, 7) as ``measure_geometry`` gives it.
    """
    share, best = shares.max(1)
    likeness = 10 * (features * words[best]).sum(1)
    columns = [(share + _TINY).log(), likeness, presence.to(best.device)[best]]
    own = torch.stack(columns, 1).cpu().numpy().astype(np.float32)
    found = drawn[:, 2:] if drawn.shape[1] > 2 else np.zeros((len(drawn), 3), np.float32)
    return np.concatenate([own, drawn[:, :2], shape, found], 1).astype(np.float32)


@dataclass(frozen=True)
class Calibration:
    """A logistic of signals: the probability that a candidate's mask (IoU of 0.5 or more) and name are right.

    Raises InputError for a weight of no signal.

    >>> Calibration({"quality": 2.0}, -1.0).predict(np.zeros((1, len(SIGNALS)), np.float32)).tolist()[0].__round__(2)
    0.27
    """

    # what may be weighed, in order
    signals: ClassVar[tuple[str, ...]] = SIGNALS

    # by the name of the signal; those that are not named weigh nothing
    weights: Mapping[str, float]
    # of the logistic
    offset: float
    # on what it was fitted, in words, for run.json and the report
    fitted_on: str = ""

    def __post_init__(self) -> None:
        for name in self.weights:
            if name not in self.signals:
                raise build_unknown_error("signal", name, self.signals)
        if not all(np.isfinite([*self.weights.values(), self.offset])):
            raise InputError(f"expected finite weights of a calibration, got {dict(self.weights)} and {self.offset}")

    def predict(self, signals: FloatArray) -> FloatArray:
        """How likely each candidate is right, (N) in 0 .. 1, by its signals (N, S)."""
        weights = np.array([self.weights.get(name, 0.0) for name in self.signals], np.float64)
        logit = np.asarray(signals, np.float64) @ weights + self.offset
        return (1 / (1 + np.exp(-logit))).astype(np.float32)
