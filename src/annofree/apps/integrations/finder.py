"""Names and models once, then one image after another: what the functions of other tools have in common."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
import PIL.Image

from annofree.hub.presets import DEFAULT
from annofree.io.images import convert_pillow
from annofree.pipelines.plan import Plan
from annofree.runs.tasks import Tasks
from annofree.structures import Classes, Detections, Image, Vocabulary

__all__ = ["Finder"]


class Finder:
    """Finds ``classes`` in images, as ``segment`` does; models are loaded when the first image comes.

    Raises InputError for names, a preset, a method or a policy that cannot be.

    >>> Finder("orange, elephant", "tiny", device="cpu").find(PIL.Image.open("examples/scenes/oranges.jpg")).labels.tolist()[:1]
    ['orange']
    """

    def __init__(
        self,
        classes: Classes,
        preset: str = DEFAULT,
        *,
        method: str | None = None,
        device: str = "auto",
        policy: str = "answer",
        min_score: float = 0.0,
    ) -> None:
        self.vocabulary, self.min_score = Vocabulary.of(classes), min_score
        self.plan = Plan(("instance",), method, "default", preset, "found", device, policy=policy)
        self.plan.check()

    def find(self, image: PIL.Image.Image | npt.NDArray[np.uint8]) -> Detections:
        """What is in an image, a Pillow one or an array (H, W, 3) uint8 RGB, strongest first."""
        pixels = convert_pillow(image) if isinstance(image, PIL.Image.Image) else np.require(image, requirements=["C", "W"])
        (encoding,) = self._tasks.encode([Image(pixels)])
        found = self._tasks.predict(encoding, self.vocabulary).detections
        assert found is not None  # noqa: S101 -- instances are what was planned
        return found[found.scores >= self.min_score]

    @cached_property
    def _tasks(self) -> Tasks:
        return self.plan.load_tasks(self.vocabulary)
