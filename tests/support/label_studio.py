"""Label Studio's requests, and a service that answers them with known masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from annofree.apps.web.service import Drawn
from annofree.pipelines.plan import Plan
from annofree.structures import Classes, Detections, Vocabulary

SIZE = (40, 60)

BRUSH = """<View>
  <Image name="photo" value="$image"/>
  <BrushLabels name="brush" toName="photo">
    <Label value="cat" synonyms="kitten | tabby"/><Label value="dog" alias="D"/>
  </BrushLabels>
  <KeyPointLabels name="points" toName="photo" smart="true"><Label value="cat"/><Label value="nothing"/></KeyPointLabels>
</View>"""

APART = """<View>
  <Image name="i" value="$image"/>
  <Labels name="l" toName="i"><Label value="cat"/></Labels><Brush name="b" toName="i"/>
</View>"""
"""A shape whose labels are a tag of their own."""


def build_config(tag: str) -> str:
    """A labeling interface with one tag of labels cat and dog."""
    labels = '<Label value="cat"/><Label value="dog"/>'
    return f'<View><Image name="photo" value="$image"/><{tag} name="t" toName="photo">{labels}</{tag}></View>'


def draw_mask() -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Two parts, one with a hole."""
    mask = np.zeros(SIZE, bool)
    mask[4:24, 6:30] = True
    mask[10:14, 12:20] = False
    mask[30:36, 40:52] = True
    return mask


class KnownService:
    """Finds ``draw_mask`` as the last of the names, and draws 10 px around a prompt."""

    plan = Plan(("instance",), None, "default", "tiny", "found", "cpu")

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def answer(self, image: Any, classes: Classes) -> Detections:
        names = Vocabulary.of(classes).names
        self.asked.append((image.open().size, classes))
        return Detections.from_masks(draw_mask()[None], [len(names) - 1], [0.75], names)

    def segment(self, image: Any, points: Any, box: Any = None) -> Drawn:
        self.asked.append((image.open().size, points, box))
        mask = np.zeros(SIZE, bool)
        mask[10:20, 20:40] = True
        return Drawn(mask, (20.0, 10.0, 40.0, 20.0), 0.5)


def write_picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(path)
    return path


def build_region(kind: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A region as Label Studio's page sends it."""
    about = {"original_width": SIZE[1], "original_height": SIZE[0], "image_rotation": 0}
    return {"id": "r1", "from_name": "t", "to_name": "photo", "type": kind, **about, "value": value, **more}
