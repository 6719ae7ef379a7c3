"""A run as one page to look at: static HTML in a folder of its own, no scripts, nothing from elsewhere.

OUT
├── index.html
├── pictures/   thumbnails of the pictures that are shown, with what was found drawn over them
└── sheets/     the best instances of each class, cut out
"""

from __future__ import annotations

import heapq
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import PIL.Image

from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.formats.contact_sheet import Thumbnail, draw_contact_sheet
from annofree.formats.files import make_folder, write_atomic
from annofree.formats.pictures import mask_of, pictures_of
from annofree.formats.report_page import Figure, PageParts, page
from annofree.formats.run_summary import ClassCount, Crop, PictureCount, RunSummary
from annofree.structures import Image

__all__ = ["Opener", "write_report"]

Opener = Callable[[str], Image]
"""Opens a picture of the run by its file name; raises InputError where it cannot."""

_GENERATOR = "annofree report"
_THUMBNAIL = 400  # px
_PALE = 0.65  # how much of a crop outside its mask is white
_AROUND = 0.12  # of a box's longer side is left around it in a crop


def write_report(
    run: Path, out: Path, *, shown: int = 12, crops: int = 24, sheets: int = 200, picture: Opener | None = None
) -> Path:
    """Write the report of a run's folder to ``out`` and return its page.

    ``shown`` pictures are in each row of best, least sure and emptiest; ``crops`` instances on the sheet of a class, for the
    ``sheets`` classes that have the most.  Crops are cut from the run's overlays, or from the pictures that ``picture`` opens.
    A report that is there is replaced.  Raises InputError when ``run`` is no run, and when ``out`` holds something else.
    """
    summary = RunSummary.read(run, best=crops)
    _check(out)
    make_folder(out.parent)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
            folder = Path(temporary) / out.name
            for part in (folder, folder / "pictures", folder / "sheets"):
                part.mkdir()
            files = _Files(run, folder, out, summary, picture)
            text = page(_GENERATOR, summary, files.parts(shown, sheets))
            (folder / "index.html").write_text(text, encoding="utf-8", errors="replace")
            if out.exists():
                shutil.rmtree(out)
            folder.replace(out)
    except OSError as problem:
        raise InputError(f"expected a folder that can be written to, but {out} cannot: {problem.strerror}") from None
    return out / "index.html"


def _check(out: Path) -> None:
    """Refuse to put a report in the place of anything but an earlier one."""
    try:
        if not out.exists() or not any(out.iterdir()):
            return
        index = out / "index.html"
        ours = index.is_file() and f'content="{_GENERATOR}"' in index.read_text(encoding="utf-8", errors="replace")[:2000]
    except OSError as problem:
        raise InputError(f"expected a folder that can be written to, but {out} cannot: {problem.strerror}") from None
    if not ours or {p.name for p in out.iterdir()} - {"index.html", "pictures", "sheets"}:
        raise InputError(f"expected a new or empty folder, or an earlier report, at {out}; choose another --out")


@dataclass(frozen=True)
class _Files:
    """Draws the pictures of a report into ``folder``, which will be ``out``."""

    run: Path
    folder: Path
    out: Path
    summary: RunSummary
    picture: Opener | None

    def parts(self, shown: int, sheets: int) -> PageParts:
        """Draw all that the page shows; each thumbnail once."""
        found = self.summary.pictures
        full = [id_ for id_, p in found.items() if p.instances]
        best = heapq.nsmallest(shown, full, key=lambda id_: -found[id_].mean_score)
        least = heapq.nsmallest(shown, full, key=lambda id_: found[id_].mean_score)
        empty = heapq.nsmallest(shown, found, key=lambda id_: (found[id_].instances > 0, found[id_].covered))
        chosen = dict.fromkeys([*best, *least, *empty])
        drawn = {id_: self._figure(f"pictures/{i:03}.jpg", found[id_]) for i, id_ in enumerate(chosen, 1)}
        classes = sorted((c for c in self.summary.classes.values() if c.instances), key=lambda c: -c.instances)
        made = [(c, self._sheet(i, c)) for i, c in enumerate(classes[:sheets], 1)]
        rows = {"best": best, "least": least, "empty": empty}
        return PageParts({k: [drawn[i] for i in ids] for k, ids in rows.items()}, made, len(classes) - len(made))

    def _figure(self, place: str, counted: PictureCount) -> Figure:
        overlay = self._overlay(counted)
        if overlay is None:
            return Figure(counted, "", "", (0, 0))
        overlay.thumbnail((_THUMBNAIL, _THUMBNAIL))
        _save(self.folder / place, overlay)
        return Figure(counted, place, self._link(self.run / counted.overlay), overlay.size)

    def _link(self, target: Path) -> str:
        """A relative link to a file of the run, "" where the report lies elsewhere and would not move with it."""
        if not self.out.resolve().is_relative_to(self.run.resolve()):
            return ""
        return quote(Path(os.path.relpath(target.resolve(), self.out.resolve())).as_posix(), errors="replace")

    def _overlay(self, counted: PictureCount) -> PIL.Image.Image | None:
        place = self.run / counted.overlay
        try:
            if counted.overlay and place.resolve().is_relative_to(self.run.resolve()):
                with PIL.Image.open(place) as opened:
                    return opened.convert("RGB")
        except (OSError, ValueError, PIL.Image.DecompressionBombError):
            pass  # the page says that there is no picture
        return None

    def _sheet(self, number: int, counted: ClassCount) -> str:
        crops = sorted(counted.best, reverse=True)
        title = f"{counted.name}: the best {len(crops)} of {counted.instances}"
        thumbnails = [Thumbnail(self._cut(crop), f"{crop.score:.2f}") for crop in crops]
        sheet = draw_contact_sheet(title, thumbnails, color=counted.color)
        place = f"sheets/{number:03}.jpg"
        _save(self.folder / place, sheet)
        return place

    def _cut(self, crop: Crop) -> Image | None:
        """An instance with a little around it, pale outside its mask; None where its picture cannot be opened."""
        counted = self.summary.pictures[crop.image_id]
        source = self._whole(counted)
        if source is None:
            return None
        window = _window(crop.box, (source.width / counted.size[1], source.height / counted.size[0]), source.size)
        piece = source.crop(window)
        mask = _mask(crop.mask, counted.size)
        if mask is not None:
            inside = mask.resize(source.size, PIL.Image.Resampling.NEAREST).crop(window)
            pale = PIL.Image.blend(piece, PIL.Image.new("RGB", piece.size, "white"), _PALE)
            piece = PIL.Image.composite(piece, pale, inside)
        return Image(np.asarray(piece))

    def _whole(self, counted: PictureCount) -> PIL.Image.Image | None:
        if self.picture is None:
            return self._overlay(counted)
        try:
            return PIL.Image.fromarray(self.picture(counted.file_name).pixels)
        except InputError:
            return None


def _window(
    box: tuple[float, float, float, float], scale: tuple[float, float], size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """A box, scaled (x, y), with a little around it, within a picture of ``size`` (width, height)."""
    x0, y0, x1, y1 = box
    around = _AROUND * max(x1 - x0, y1 - y0)
    left, top = max(0, round((x0 - around) * scale[0])), max(0, round((y0 - around) * scale[1]))
    right, bottom = min(size[0], round((x1 + around) * scale[0])), min(size[1], round((y1 + around) * scale[1]))
    return min(left, size[0] - 1), min(top, size[1] - 1), max(right, left + 1), max(bottom, top + 1)


def _mask(drawn: Any, size: tuple[int, int]) -> PIL.Image.Image | None:
    """A mask as COCO has it, 255 inside; None without one."""
    if drawn is None:
        return None
    row = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "segmentation": drawn}
    image = {"id": 1, "file_name": "", "height": size[0], "width": size[1]}
    rle = pictures_of(CocoFile([image], [{"id": 1, "name": ""}], [row]))[0].things[0].rle
    return None if rle is None else PIL.Image.fromarray(mask_of(rle)).convert("L")


def _save(path: Path, picture: PIL.Image.Image) -> None:
    write_atomic(path, partial(picture.save, format="JPEG", quality=86))
