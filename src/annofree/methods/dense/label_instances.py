"""From a label map to instances: the connected regions of each name, or all its pixels at once, scored by ZUTIS's rule.

What every method that names pixels shares: it draws scores, the strongest makes the map, and this makes detections of the map.
H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from annofree.detections.painting import average_over_regions, convert_regions, number_classes, number_components
from annofree.detections.prompting import Redraw
from annofree.errors import InputError
from annofree.ops.regions import Connectivity
from annofree.structures import Detections, FloatArray, LabelMap, Vocabulary

__all__ = ["RegionSettings", "find_label_instances"]

_ZUTIS_GAIN = 5.0  # of the cosine in ZUTIS's class probability


@dataclass(frozen=True)
class RegionSettings:
    """How instances are made of a label map."""

    # of the softmax that a pixel's confidence comes from; CLIP's own is 100
    logit_scale: float = 100.0
    # each connected region of a class (``components``), or all its pixels at once (``classes``: how ZUTIS makes an instance
    # baseline of MaskCLIP); either is scored by ZUTIS's rule: the mean confidence of its pixels times the class's probability
    # sigmoid(5 x mean score)
    instances: Literal["components", "classes"] = "components"
    # of the regions: 4 or 8 neighbors of a pixel
    connectivity: Connectivity = 8
    # px of an instance at least
    min_area: int = 0
    # instances an image, the strongest; 100 as COCO counts them
    most: int = 100
    # how SAM draws each instance anew: not, by its ``box``, or then again by the box of what it drew and its center
    # (``box+point``, Zip, App. I); `methods/build.py` puts SAM behind the method
    redraw: Redraw = "none"

    def require_own_masks(self) -> None:
        """Refuse a ``redraw`` in a method that has no SAM behind it; raises InputError."""
        if self.redraw != "none":
            raise InputError(
                f"expected a SAM for redraw {self.redraw!r}, which a method by itself has not; make it by annofree.load, or "
                "put Redrawn of annofree.methods.steps.redrawing around one whose redraw is 'none'"
            )


def find_label_instances(
    labels: LabelMap, classes: Vocabulary, settings: RegionSettings, sure: Tensor | None = None, values: Tensor | None = None
) -> Detections:
    """Make the instances of a label map of some ``classes`` and, perhaps, a background.

    They are scored by how ``sure`` the pixels' names are (H, W), and by their scores ``values`` (H, W); 1 where a map says no
    more than names.

    >>> labels = LabelMap(np.array([[1, 0, 1]], np.int32), ("background", "dog"), 0)
    >>> find_label_instances(labels, Vocabulary.of("dog"), RegionSettings()).boxes.tolist()
    [[0.0, 0.0, 1.0, 1.0], [2.0, 0.0, 3.0, 1.0]]
    """
    s = settings
    regions, owner = number_components(labels, s.connectivity) if s.instances == "components" else number_classes(labels)
    scores: FloatArray = np.ones(len(owner), np.float32)
    if sure is not None and values is not None:
        scores = compute_zutis_scores(average_over_regions(regions, len(owner), [sure, values]))
    ids = _find_places(labels, owner, classes)
    return convert_regions(regions, ids, scores, classes.names, min_area=s.min_area, most=s.most)


def _find_places(labels: LabelMap, owner: Sequence[int], classes: Vocabulary) -> list[int]:
    """The places among the classes of names of the map, which may have its background before them, or after them."""
    place = {name: k for k, name in enumerate(classes.names)}
    return [place[labels.names[k]] for k in owner]


def compute_zutis_scores(means: FloatArray) -> FloatArray:
    """The mean confidence (N) times the probability of the class, a sigmoid of 5 times the mean score (N); ``means`` (N, 2)."""
    scores: FloatArray = (means[:, 0] / (1 + np.exp(-_ZUTIS_GAIN * means[:, 1]))).astype(np.float32)
    return scores
