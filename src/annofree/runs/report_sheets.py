"""Crops of the best instances: one sheet per class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from annofree.errors import InputError
from annofree.ops.palette import Color, assign_colors
from annofree.ops.rle import decode_rle
from annofree.render.contact_sheet import Thumbnail, draw_contact_sheet
from annofree.render.page_images import Opener, open_overlay, save_jpeg
from annofree.runs.store.counts import ClassCount, Crop
from annofree.runs.store.summary import RunSummary
from annofree.structures import Image
from annofree.structures.coco_rows import encode_segmentation

__all__ = ["SheetFiles"]

_PALE = 0.65  # how much of a crop outside its mask is white
_AROUND = 0.12  # of a box's longer side is left around it in a crop
_KEPT = 4  # images in memory, for the best of a class are often of one image


@dataclass(frozen=True)
class SheetFiles:
    """Writes the sheets of a run to ``folder``/sheets; instances are cut from what ``picture`` opens, else from overlays."""

    run: Path
    folder: Path
    summary: RunSummary
    picture: Opener | None

    def write_sheets(self, most: int) -> list[tuple[ClassCount, str]]:
        """Write the sheets of the ``most`` classes that have the most instances, and return each with its file."""
        classes = sorted((c for c in self.summary.classes.values() if c.instances), key=lambda c: -c.instances)[:most]
        opened = lru_cache(_KEPT)(self._whole)
        colors = assign_colors(c.name for c in self.summary.classes.values())
        return [(counted, self._sheet(k, counted, colors[counted.name], opened)) for k, counted in enumerate(classes, 1)]

    def _sheet(self, number: int, counted: ClassCount, color: Color, opened: Callable[[int], PIL.Image.Image | None]) -> str:
        crops = sorted(counted.best, reverse=True)
        title = f"{counted.name}: the best {len(crops)} of {counted.instances}"
        thumbnails = [Thumbnail(self._cut(crop, opened(crop.image_id)), f"{crop.score:.2f}") for crop in crops]
        place = f"sheets/{number:03}.jpg"
        (self.folder / "sheets").mkdir(exist_ok=True)
        save_jpeg(self.folder / place, draw_contact_sheet(title, thumbnails, color=color))
        return place

    def _cut(self, crop: Crop, source: PIL.Image.Image | None) -> Image | None:
        """A crop of an instance, pale outside its mask; None if its image cannot be opened."""
        if source is None:
            return None
        size = self.summary.pictures[crop.image_id].size
        window = _window(crop.box, (source.width / size[1], source.height / size[0]), source.size)
        piece = source.crop(window)
        mask = _mask(crop.mask, size)
        if mask is not None:
            inside = mask.resize(source.size, PIL.Image.Resampling.NEAREST).crop(window)
            pale = PIL.Image.blend(piece, PIL.Image.new("RGB", piece.size, "white"), _PALE)
            piece = PIL.Image.composite(piece, pale, inside)
        return Image(np.asarray(piece))

    def _whole(self, image_id: int) -> PIL.Image.Image | None:
        counted = self.summary.pictures[image_id]
        if self.picture is not None:
            try:
                return PIL.Image.fromarray(self.picture(counted.file_name).pixels)
            except InputError:
                pass
        return open_overlay(self.run, counted.overlay)


def _window(
    box: tuple[float, float, float, float], scale: tuple[float, float], size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """A box, scaled (x, y) and padded, within an image of ``size`` (width, height)."""
    x0, y0, x1, y1 = box
    around = _AROUND * max(x1 - x0, y1 - y0)
    left, top = max(0, round((x0 - around) * scale[0])), max(0, round((y0 - around) * scale[1]))
    right, bottom = min(size[0], round((x1 + around) * scale[0])), min(size[1], round((y1 + around) * scale[1]))
    return min(left, size[0] - 1), min(top, size[1] - 1), max(right, left + 1), max(bottom, top + 1)


def _mask(drawn: Any, size: tuple[int, int]) -> PIL.Image.Image | None:
    """A mask as COCO has it, 255 inside; None without one."""
    if drawn is None:
        return None
    rle = encode_segmentation(drawn, size)
    return None if rle is None else PIL.Image.fromarray(decode_rle(rle)).convert("L")
