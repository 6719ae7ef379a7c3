"""Semantic ground truth of the emoji world: the visible masks of its scenes, merged by class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from annofree.datasets.benchmarks.coco_object import open_coco_instances
from annofree.datasets.benchmarks.semantic import SemanticDataset
from annofree.datasets.emoji.world import CATEGORIES, Scene
from annofree.datasets.names import BACKGROUND
from annofree.structures import LabelMap

__all__ = ["EMOJI_NAMES", "label_scene", "open_emoji_scenes"]

EMOJI_NAMES: tuple[str, ...] = (BACKGROUND, *CATEGORIES.values())
"""The background and the 65 names of the emoji world."""


def label_scene(scene: Scene) -> LabelMap:
    """Label every pixel of a scene with the class of the visible object, or background, index 0.

    >>> EMOJI_NAMES[:3]
    ('background', 'person', 'bicycle')
    """
    order = list(CATEGORIES)
    classes = [0, *(order.index(thing.category_id) + 1 for thing in scene.objects)]
    return LabelMap(np.array(classes, np.int32)[scene.layout], EMOJI_NAMES, background=0)


def open_emoji_scenes(folder: Path) -> SemanticDataset:
    """Open a folder of written scenes, ``truth.json`` and ``images``; their visible masks never overlap.

    Raises InputError when files are missing.
    """
    return open_coco_instances(folder / "truth.json", folder / "images")
