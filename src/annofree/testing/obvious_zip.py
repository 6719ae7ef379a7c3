"""Reference implementation of Zip after its networks: one class at a time, loops over boolean arrays.

A slow reference that follows the released demo step by step, to test and benchmark the fast steps
beside: k-means, the active cells, the choice of fragments, the instances and their boxes.  Accidents of the demo are
kept, and said where they happen.  Feature cells are (h, w), image pixels (H, W); clusters and instances count from 1.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from skimage.measure import label

from annofree.structures import BoolArray, IntArray

__all__ = [
    "ObviousResult",
    "choose_obvious_seeds",
    "compute_obvious_boxes",
    "find_obvious_fragments",
    "mark_obvious_active",
    "number_obvious_instances",
    "run_obvious_kmeans",
    "run_obvious_zip",
]

Floats = npt.NDArray[np.floating[Any]]

_ACTIVE_SHARE_OF_MEAN = 0.7
_MIN_ACTIVE_FRACTION = 0.3
_MAX_BOX_RATIO = 3
_MOST_COMMON = 20
_MIN_AREA = 100


class ObviousResult(NamedTuple):
    """The results of all steps for one class: maps (h, w), and ``boxes`` (N, 4) x0 y0 x1 y1 px, one for each instance."""

    clusters: IntArray
    active: BoolArray
    kept: BoolArray
    instances: IntArray
    boxes: npt.NDArray[np.float64]


def choose_obvious_seeds(n: int, k: int) -> list[int]:
    """Return k equally spaced indices among n, rounded half to even and each once, as the released demo seeds clusters.

    The demo rounds in float32; its 20 positions lie at least 1/38 from a half, so below some 100,000 cells it is the same.

    >>> choose_obvious_seeds(6, 3), choose_obvious_seeds(3, 20)
    ([0, 2, 5], [0, 1, 2])
    """
    return sorted({round(i * (n - 1) / max(k - 1, 1)) for i in range(k)})


def run_obvious_kmeans(
    features: Floats, centers: Floats, iterations: int = 100, *, rtol: float = 1e-5, atol: float = 1e-8
) -> IntArray:
    """Cluster features (n, C) from centers (K, C) by Lloyd's rule in the features' precision; labels (n,) from 0.

    As in the released demo an empty cluster keeps its center and ties go to the first cluster.  It ends after
    ``iterations``, or earlier once all centers are ``allclose`` to the ones before; the labels are those of the last
    assignment, made before the centers moved for the last time.

    >>> run_obvious_kmeans(np.array([[0.0], [1.0], [9.0]]), np.array([[0.0], [1.0], [50.0]]))
    array([0, 0, 1])
    """
    old = np.array(centers, features.dtype)
    labels = np.zeros(len(features), np.int64)
    for _ in range(iterations):
        labels = _nearest(features, old)
        new = _means(features, labels, old)
        if np.allclose(new, old, rtol=rtol, atol=atol):
            break
        old = new
    return labels


def _nearest(features: Floats, centers: Floats) -> IntArray:
    squares = np.stack([((features - center) ** 2).sum(1) for center in centers])
    return np.asarray(squares.argmin(0), np.int64)


def _means(features: Floats, labels: IntArray, old: Floats) -> Floats:
    new = old.copy()
    for k in range(len(old)):
        if (labels == k).any():
            new[k] = features[labels == k].mean(0)
    return new


def mark_obvious_active(class_act: Floats, grid: tuple[int, int]) -> BoolArray:
    """Return which cells (h, w) of a grid are active: above 0.7 of the mean of the whole map (H, W).

    As in the released demo the mean is over all pixels, each cell looks at the one pixel floor(i H / h), floor(j W / w),
    and equality is not enough.

    >>> mark_obvious_active(np.array([[0.35, 0.65], [0.65, 0.35]]), (1, 2))
    array([[False,  True]])
    """
    (height, width), (h, w) = class_act.shape, grid
    threshold = _ACTIVE_SHARE_OF_MEAN * class_act.mean()
    active = np.zeros(grid, bool)
    for i in range(h):
        for j in range(w):
            active[i, j] = class_act[i * height // h, j * width // w] > threshold
    return active


def find_obvious_fragments(labels: IntArray, active: BoolArray) -> BoolArray:
    """Return the cells (h, w) of all fragments that are kept, given clusters (h, w) from 1 and the active cells (h, w).

    A fragment is a 4-connected piece of a cluster.  It is kept when more than 0.3 of its cells are active and its box is
    less than 3 times its area.  As in the released demo only the 20 commonest values of ``labels * active`` are looked
    at, and 0, the inactive cells, is one of them: with 20 clusters active, the rarest value falls out (in a tie the one
    first met last, row by row).

    >>> find_obvious_fragments(np.array([[1, 1, 2, 2]]), np.array([[True, False, False, False]])).tolist()
    [[True, True, False, False]]
    """
    kept = np.zeros(labels.shape, bool)
    for cluster, _ in Counter((labels * active).ravel().tolist()).most_common(_MOST_COMMON):
        if cluster == 0:
            continue
        for piece in _pieces(labels == cluster):
            if _active_fraction(piece, active) > _MIN_ACTIVE_FRACTION and _box_ratio(piece) < _MAX_BOX_RATIO:
                kept |= piece
    return kept


def number_obvious_instances(kept: BoolArray, min_area: int = _MIN_AREA) -> IntArray:
    """Number the 4-connected pieces of the kept cells (h, w) from 1, row by row, skipping those under ``min_area`` cells.

    The released demo does not draw instances of fewer than 100 cells.

    >>> number_obvious_instances(np.array([[True, False, True, True]]), min_area=2)
    array([[0, 0, 1, 1]])
    """
    instances = np.zeros(kept.shape, np.int64)
    large = [piece for piece in _pieces(kept) if piece.sum() >= min_area]
    for number, piece in enumerate(large, start=1):
        instances[piece] = number
    return instances


def compute_obvious_boxes(instances: IntArray, image_size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return boxes (N, 4) x0 y0 x1 y1 px around instances (h, w), end-exclusive, in an image of size (H, W).

    As in the released demo the scales are swapped: x grows by H / h and y by W / w.

    >>> compute_obvious_boxes(np.array([[0, 1]]), (10, 40)).tolist()
    [[10.0, 0.0, 20.0, 20.0]]
    """
    (height, width), (h, w) = image_size, instances.shape
    boxes = np.zeros((instances.max(initial=0), 4))
    for n in range(len(boxes)):
        x0, y0, x1, y1 = _box(instances == n + 1)
        boxes[n] = x0 * (height / h), y0 * (width / w), x1 * (height / h), y1 * (width / w)
    return boxes


def run_obvious_zip(features: Floats, class_act: Floats, k: int = 20, min_area: int = _MIN_AREA) -> ObviousResult:
    """Find the instances of one class from features (C, h, w) and its activation (H, W), each step the obvious way.

    >>> two_halves = np.repeat([[[0.0, 9.0]]], 4, axis=1)
    >>> found = run_obvious_zip(two_halves, np.array([[0.0, 1.0]]), k=2, min_area=1)
    >>> found.instances[0].tolist(), found.boxes.tolist()
    ([0, 1], [[0.25, 0.0, 0.5, 4.0]])
    """
    grid = (features.shape[1], features.shape[2])
    cells = features.reshape(len(features), -1).T
    clusters = run_obvious_kmeans(cells, cells[choose_obvious_seeds(len(cells), k)]).reshape(grid) + 1
    active = mark_obvious_active(class_act, grid)
    kept = find_obvious_fragments(clusters, active)
    instances = number_obvious_instances(kept, min_area)
    boxes = compute_obvious_boxes(instances, (class_act.shape[0], class_act.shape[1]))
    return ObviousResult(clusters, active, kept, instances, boxes)


def _pieces(mask: BoolArray) -> list[BoolArray]:
    regions = np.asarray(label(mask, connectivity=1))
    return [regions == number for number in range(1, regions.max(initial=0) + 1)]


def _active_fraction(piece: BoolArray, active: BoolArray) -> float:
    return int((piece & active).sum()) / int(piece.sum())


def _box_ratio(piece: BoolArray) -> float:
    x0, y0, x1, y1 = _box(piece)
    return (x1 - x0) * (y1 - y0) / int(piece.sum())


def _box(piece: BoolArray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(piece)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1
