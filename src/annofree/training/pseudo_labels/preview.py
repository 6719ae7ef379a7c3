"""Labeled images on one sheet, for people to look at before a network learns from them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from annofree.errors import ImageError
from annofree.io.atomic import write_jpeg
from annofree.io.image_sources import read_place
from annofree.io.images import silence_pillow
from annofree.render.contact_sheet import Thumbnail, draw_contact_sheet
from annofree.render.overlay import draw_overlay
from annofree.structures import Detections, Image

__all__ = ["LabelSheet"]

_SIDE, _COLUMNS = 240, 6


class LabelSheet:
    """A sheet of up to ``count`` of the labeled images below ``root``, taken at even distances."""

    def __init__(self, root: Path, count: int, labeled: int) -> None:
        self._root = root
        self._places = {i * labeled // count for i in range(count)} if labeled > count else set(range(labeled))
        self._thumbnails: list[Thumbnail] = []

    def draw(self, labels: Iterable[tuple[str, Detections]]) -> None:
        """Draw those of the images, given by file name with their labels, that belong on the sheet."""
        if not self._places:
            return
        filled = ((name, found) for name, found in labels if len(found))
        with silence_pillow():
            self._thumbnails += [self._thumbnail(*pair) for i, pair in enumerate(filled) if i in self._places]

    def save(self, path: Path, title: str) -> None:
        """Write the sheet as JPEG, unless it is to have no images."""
        if self._thumbnails:
            write_jpeg(path, draw_contact_sheet(title, self._thumbnails, columns=_COLUMNS, side=_SIDE), quality=90)

    def _thumbnail(self, name: str, found: Detections) -> Thumbnail:
        try:
            image = read_place(f"{self._root}/{name}", name)
        except ImageError:
            return Thumbnail(None, f"{name}: cannot be read")
        if image.size != found.size:
            return Thumbnail(image, f"{name}: of another size")
        return Thumbnail(Image(np.asarray(draw_overlay(image, found).convert("RGB"))), f"{len(found)} in {name}")
