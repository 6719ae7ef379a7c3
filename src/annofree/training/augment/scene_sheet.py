"""Copy-paste scenes on one sheet, for people to look at before and while a network is trained on them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import PIL.Image

from annofree.errors import InputError
from annofree.render.overlay import draw_overlay
from annofree.structures import Detections, Image
from annofree.training.augment.copy_paste import PastedScene

__all__ = ["draw_scenes"]

_GAP = 6  # px
_PAPER = (255, 255, 255)


def draw_scenes(
    scenes: Sequence[PastedScene], names: Sequence[str], *, columns: int = 2, side: int = 384, ignored: int = 255
) -> PIL.Image.Image:
    """Draw each scene beside its truth, both ``side`` px, ``columns`` such pairs in a row.

    The truth is an overlay, each instance in the color of its class, with its name, as ``draw_overlay`` does it; padding,
    whose label is ``ignored``, is striped.  Raises InputError for no scenes.
    """
    if not scenes:
        raise InputError("expected at least one scene to draw, got none")
    columns = min(columns, len(scenes))
    rows = math.ceil(len(scenes) / columns)
    cell = side + _GAP
    sheet = PIL.Image.new("RGB", (2 * columns * cell + _GAP, rows * cell + _GAP), _PAPER)
    for number, scene in enumerate(scenes):
        row, column = divmod(number, columns)
        for k, image in enumerate((PIL.Image.fromarray(scene.image), _overlaid(scene, names, ignored))):
            small = image.resize((side, side), PIL.Image.Resampling.LANCZOS)
            sheet.paste(small, (_GAP + (2 * column + k) * cell, _GAP + row * cell))
    return sheet


def _overlaid(scene: PastedScene, names: Sequence[str], ignored: int) -> PIL.Image.Image:
    pixels = scene.image.copy()
    lines = np.arange(len(pixels))
    stripes = np.add.outer(lines, lines) // 4 % 2 == 0
    pixels[(scene.semantic == ignored) & stripes] = _PAPER
    true = Detections.from_masks(scene.instances, scene.class_ids, [1.0] * len(scene.class_ids), names)
    return draw_overlay(Image(pixels, "scene"), true)
