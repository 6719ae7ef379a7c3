"""What is counted of a run: images, classes, and scores by the steps that a slider can be set to."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BINS", "STEPS", "ClassCount", "Crop", "ImageCount", "find_step"]

BINS = 20
"""Bins of the score histograms, from 0 to 1."""
STEPS = 100
"""Steps from 0 to 1 that scores are counted by: those a slider can be set to."""


def find_step(score: float) -> int:
    """Return the last of the steps k / ``STEPS`` that a score reaches, by the very comparison a page makes.

    >>> find_step(0.29), find_step(0.2899999), find_step(1.5)
    (29, 28, 100)
    """
    step = min(STEPS, max(0, int(score * STEPS) + 1))
    while step > 0 and score < step / STEPS:
        step -= 1
    return step


@dataclass(slots=True)
class ImageCount:
    """One image: how many instances it has, the sum of their scores and of their areas, px.

    ``overlay``, the label map ``labels`` and the map of segments ``panoptic`` are files of the run, "" where it has none.
    """

    file_name: str
    size: tuple[int, int]
    overlay: str = ""
    labels: str = ""
    panoptic: str = ""
    instances: int = 0
    scores: float = 0.0
    area: float = 0.0

    @property
    def mean_score(self) -> float:
        """The mean score of its instances, 0 when there are none."""
        return self.scores / self.instances if self.instances else 0.0

    @property
    def covered(self) -> float:
        """The areas of its instances as a part of the image; overlaps count twice."""
        return self.area / max(1, self.size[0] * self.size[1])


@dataclass(frozen=True, order=True)
class Crop:
    """One instance of a class, to be cut out: its ``score``, its image's id, its ``box`` x0 y0 x1 y1 px, and its mask as
    COCO has it, or None.
    """

    score: float
    image_id: int
    box: tuple[float, float, float, float]
    mask: Any = field(default=None, compare=False)


@dataclass
class ClassCount:
    """One class: instances, images that have any, the sum of scores, and the best instances.

    ``steps`` counts instances by the step that their score reaches, ``picture_steps`` images by that of their surest one.
    """

    name: str
    instances: int = 0
    pictures: int = 0
    scores: float = 0.0
    steps: list[int] = field(default_factory=lambda: [0] * (STEPS + 1))
    picture_steps: list[int] = field(default_factory=lambda: [0] * (STEPS + 1))
    best: list[Crop] = field(default_factory=list)
    _last: Any = None
    _top: int = 0

    @property
    def bins(self) -> list[int]:
        """The histogram of scores."""
        wide = STEPS // BINS
        counts = [sum(self.steps[i : i + wide]) for i in range(0, STEPS, wide)]
        counts[-1] += self.steps[STEPS]
        return counts

    def add(self, image_id: int, score: float, crop: Crop, most: int) -> None:
        """Count one instance; instances come image by image."""
        step = find_step(score)
        self.instances += 1
        self.scores += score
        self.steps[step] += 1
        if image_id != self._last:
            self.pictures += 1
            self.picture_steps[step] += 1
            self._last, self._top = image_id, step
        elif step > self._top:
            self.picture_steps[self._top] -= 1
            self.picture_steps[step] += 1
            self._top = step
        if len(self.best) < most:
            heapq.heappush(self.best, crop)
        elif most:
            heapq.heappushpop(self.best, crop)
