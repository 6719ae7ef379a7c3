"""Images as the page shows them: thumbnails, kept on the disk, and larger ones; a few are decoded at a time."""

from __future__ import annotations

import hashlib
import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image

from annofree.apps.web.kept import Recent
from annofree.apps.web.service import Source
from annofree.io.atomic import make_folder, write_atomic
from annofree.ops.palette import assign_colors
from annofree.structures import Image, LabelMap

__all__ = ["LARGE", "SMALL", "Pictures", "fit_size"]

SMALL, LARGE = 256, 1600
"""Px of the longer side of thumbnails, and at most of pictures."""

_AT_ONCE = 2  # images decoded at a time
_MEMORY = 64 << 20  # bytes of encoded pictures
_ALPHA = 150


class Pictures:
    """JPEGs of images; thumbnails stay in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._room, self._recent, self._turn = threading.Semaphore(_AT_ONCE), Recent(_MEMORY), threading.Lock()

    def make_thumbnail(self, source: Source) -> bytes:
        """A thumbnail, made once; raises ImageError for an image that cannot be read."""
        name = hashlib.sha256(source.key.encode(errors="surrogatepass")).hexdigest()[:40]
        path = self.folder / name[:2] / f"{name[2:]}.jpg"
        try:
            return path.read_bytes()
        except OSError:
            data = self._encode(source, SMALL, 80)
        make_folder(path.parent)
        write_atomic(path, lambda temporary: temporary.write_bytes(data))
        return data

    def make_picture(self, source: Source) -> bytes:
        """The image, at most 1600 px long; raises ImageError for one that cannot be read."""
        with self._turn:
            data: bytes | None = self._recent.get(source.key)
        if data is None:
            data = self._encode(source, LARGE, 88)
            with self._turn:
                self._recent.keep(source.key, data, len(data))
        return data

    def _encode(self, source: Source, side: int, quality: int) -> bytes:
        with self._room:
            image: Image = source.open()
            small = PIL.Image.fromarray(image.pixels)
            small.thumbnail((side, side), reducing_gap=3.0)
        file = BytesIO()
        small.save(file, "JPEG", quality=quality)
        return file.getvalue()


def fit_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the picture of an image of ``size`` (H, W).

    >>> fit_size((100, 200)), fit_size((1600, 3200))
    ((200, 100), (1600, 800))
    """
    scale = min(1.0, LARGE / max(size))
    return max(1, round(size[1] * scale)), max(1, round(size[0] * scale))


def paint_labels(labels: LabelMap, names: tuple[str, ...]) -> bytes:
    """A PNG of a label map, clear where there is no name, at the size of the picture; colors are those of ``names``."""
    colors = assign_colors(list(dict.fromkeys((*names, *labels.names))))
    table = np.zeros((len(labels.names) + 1, 4), np.uint8)
    for k, name in enumerate(labels.names):
        if k != labels.background:
            table[k] = (*colors[name], _ALPHA)
    return _write_png(table[labels.labels], labels.size)


def paint_segments(segments: np.ndarray, names: dict[int, str], all_names: tuple[str, ...]) -> bytes:
    """Likewise a PNG of segments by id, with clear lines between two of one name."""
    colors = assign_colors(list(dict.fromkeys((*all_names, *names.values()))))
    table = np.zeros((int(segments.max(initial=0)) + 1, 4), np.uint8)
    for id_, name in names.items():
        table[id_] = (*colors[name], _ALPHA)
    painted = table[np.clip(segments, 0, None)]
    edge = np.zeros(segments.shape, bool)
    edge[:, 1:] |= segments[:, 1:] != segments[:, :-1]
    edge[1:] |= segments[1:] != segments[:-1]
    painted[edge] = 0
    return _write_png(painted, (segments.shape[0], segments.shape[1]))


def _write_png(pixels: np.ndarray, size: tuple[int, int]) -> bytes:
    image = PIL.Image.fromarray(pixels).resize(fit_size(size), PIL.Image.Resampling.NEAREST)
    file = BytesIO()
    image.save(file, "PNG", compress_level=3)
    return file.getvalue()
