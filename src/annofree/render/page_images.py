"""Images of a page: two sizes, overlaid shapes and map layers, and links."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

import PIL.Image

from annofree.errors import InputError
from annofree.formats.annotations import Annotation
from annofree.io.atomic import make_folder, write_atomic, write_jpeg
from annofree.io.files.paths import confine
from annofree.render.page_maps import Layer, Segments, trace_layers
from annofree.render.page_shapes import Shape, compute_view_box, trace_shapes
from annofree.structures import Image

__all__ = ["ImageFiles", "Opener", "PlacedLayer", "ShownImage", "link_to", "open_overlay", "save_jpeg"]

Opener = Callable[[str], Image]
"""Opens an image of the run by its file name; raises InputError where it cannot."""

_SMALL, _LARGE = 480, 1600  # px of the longer side
_TOLD = 10  # names in the words that stand for an image
_MAPS = {"labels": "label map", "panoptic": "panoptic map"}
_ENOUGH = 1.5  # an image up to this much larger than the small size has no small file


@dataclass(frozen=True)
class PlacedLayer:
    """A layer of a map: its ``kind`` (labels or panoptic), the ``name`` of its regions, their share, and its file."""

    kind: str
    name: str
    share: float
    place: str


@dataclass(frozen=True)
class ShownImage:
    """An image on a page, numbered from 1.

    ``large`` and ``small`` are files beside the page, "" where the image could not be opened; ``width`` and ``height`` are
    those of ``large``, px.  ``shapes`` are its instances, the surest last, of ``instances`` in all; where ``drawn`` they are
    in the image already.  ``link`` is a file of the run with all drawn in, "" for none; ``notes`` say what is missing.
    """

    number: int
    file_name: str
    size: tuple[int, int]
    large: str
    small: str
    width: int
    height: int
    drawn: bool
    shapes: Sequence[Shape]
    instances: int
    layers: Sequence[PlacedLayer]
    link: str
    notes: Sequence[str]

    @property
    def box(self) -> tuple[int, int]:
        """The view box (width, height) of its shapes."""
        return compute_view_box(self.size)

    @property
    def counts(self) -> list[tuple[str, int]]:
        """How many of its shapes each class has, the most frequent first."""
        return Counter(shape.name for shape in reversed(self.shapes)).most_common()

    @property
    def words(self) -> str:
        """Text alternative of the image."""
        found = _listed([f"{count} {name}" for name, count in self.counts]) or "no instance"
        shares = {kind: _listed([f"{name} {100 * s:.0f} %" for name, s in self.compute_shares(kind) if name]) for kind in _MAPS}
        return "; ".join([f"{self.file_name}: {found}", *(f"{_MAPS[kind]}: {told}" for kind, told in shares.items() if told)])

    def compute_shares(self, kind: str) -> list[tuple[str, float]]:
        """The classes of a map and their area shares, the largest first."""
        return [(layer.name, layer.share) for layer in self.layers if layer.kind == kind]


def _listed(words: Sequence[str]) -> str:
    """List the first words, and the number of others."""
    return ", ".join(words[:_TOLD]) + (f" and {len(words) - _TOLD} more" if len(words) > _TOLD else "")


@dataclass
class ImageFiles:
    """Writes the images of a page to ``folder``/images; ``colors`` are those of the classes as CSS has them.

    ``points`` is how many an outline may have.
    """

    folder: Path
    picture: Opener | None
    colors: Mapping[str, str]
    points: int = 200
    made: int = 0

    def show(
        self,
        file_name: str,
        size: tuple[int, int],
        things: Sequence[Annotation] = (),
        *,
        maps: Mapping[str, Callable[[], Segments]] | None = None,
        overlay: Callable[[], PIL.Image.Image | None] = lambda: None,
        link: str = "",
    ) -> ShownImage:
        """Write the files of one image of ``size`` (H, W) with its results.

        If it cannot be opened, the image of ``overlay`` is used, with instances drawn and without ``maps``.
        """
        self.made += 1
        plain, notes = self._opened(file_name, size), list[str]()
        whole = overlay() if plain is None else plain
        layers = list[PlacedLayer]()
        if whole is None:
            notes.append("the image cannot be opened")
        elif plain is not None:
            size = (plain.height, plain.width)
            layers = [layer for kind, read in (maps or {}).items() for layer in self._layers(kind, read, size, notes)]
        large, small, extent = ("", "", (0, 0)) if whole is None else self._saved(whole)
        shapes = trace_shapes(things, size, self.points)
        if len(shapes) < len(things):
            notes.append(f"the {len(shapes)} surest of its {len(things):,} instances are drawn")
        drawn = plain is None and whole is not None
        return ShownImage(self.made, file_name, size, large, small, *extent, drawn, shapes, len(things), layers, link, notes)

    def _opened(self, file_name: str, size: tuple[int, int]) -> PIL.Image.Image | None:
        """The image itself; None where it is not there or, having another size than the run says, is another one."""
        if self.picture is None:
            return None
        try:
            opened = PIL.Image.fromarray(self.picture(file_name).pixels)
        except InputError:
            return None
        return opened if not any(size) or opened.size == size[::-1] else None

    def _layers(self, kind: str, read: Callable[[], Segments], size: tuple[int, int], notes: list[str]) -> list[PlacedLayer]:
        try:
            ids, names = read()
            if ids.shape != size:
                raise InputError(f"it is of size {ids.shape}")
        except InputError:
            notes.append(f"its {_MAPS[kind]} cannot be read")
            return []
        made = trace_layers(ids, names, self.colors)
        return [
            PlacedLayer(kind, layer.name, layer.share, self._placed(layer, f"{kind}-{k}")) for k, layer in enumerate(made, 1)
        ]

    def _placed(self, layer: Layer, ending: str) -> str:
        place = f"images/{self.made:04}-{ending}.png"
        save = partial(layer.picture.save, format="PNG", transparency=layer.picture.info["transparency"])
        write_atomic(self._place(place), save)
        return place

    def _saved(self, whole: PIL.Image.Image) -> tuple[str, str, tuple[int, int]]:
        """Write an image in both sizes: its large file, its small one, and what the large one measures (width, height)."""
        large, small = f"images/{self.made:04}.jpg", f"images/{self.made:04}-small.jpg"
        whole.thumbnail((_LARGE, _LARGE), reducing_gap=3.0)
        extent = whole.size
        save_jpeg(self._place(large), whole)
        if max(extent) <= _ENOUGH * _SMALL:
            return large, large, extent
        whole.thumbnail((_SMALL, _SMALL), reducing_gap=3.0)
        save_jpeg(self._place(small), whole)
        return large, small, extent

    def _place(self, place: str) -> Path:
        path = self.folder / place
        make_folder(path.parent)
        return path


def open_overlay(run: Path, place: str) -> PIL.Image.Image | None:
    """Open an overlay of a run; None if missing or outside the run."""
    try:
        if place:
            with PIL.Image.open(confine(run, place)) as opened:
                return opened.convert("RGB")
    except (OSError, ValueError, PIL.Image.DecompressionBombError):
        pass  # the page says that there is no image
    return None


def link_to(target: Path, page: Path, within: Path) -> str:
    """Return the relative link from a page's folder to a file of a run; "" if missing, or if the page is outside the run.

    >>> link_to(Path("run/none.jpg"), Path("run/report"), Path("run"))
    ''
    """
    run, at = within.resolve(), page.resolve()
    if not (at.is_relative_to(run) and target.is_file() and target.resolve().is_relative_to(run)):
        return ""
    return quote(Path(os.path.relpath(target.resolve(), at)).as_posix(), errors="replace")


def save_jpeg(path: Path, image: PIL.Image.Image) -> None:
    """Write a JPEG for a page, atomically."""
    write_jpeg(path, image, quality=86)
