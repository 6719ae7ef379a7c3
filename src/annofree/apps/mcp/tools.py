"""What the tools do: paths confined to one folder, one call of the front door, counts and a small image of what came of it.

A model that calls these reads what images and names say, so it may be told to do anything; it gets no farther than ``root``.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

import annofree
from annofree.errors import InputError
from annofree.hub.presets import find_preset
from annofree.io.callbacks import Callbacks
from annofree.pipelines.segment import RunResult
from annofree.render.contact_sheet import Thumbnail, draw_contact_sheet
from annofree.render.page_images import open_overlay
from annofree.runs.store.summary import find_images_root
from annofree.structures import Image

__all__ = ["MOST_BYTES", "Told", "Tools"]

MOST_BYTES = 100_000
"""Of an image that is returned."""

_SHOWN, _LISTED = 6, 10
_QUALITIES = (85, 70, 50, 30)


@dataclass(frozen=True)
class Told:
    """What a tool answers: ``facts`` as JSON has them, and an image as JPEG, None where there is none."""

    facts: dict[str, Any]
    picture: bytes | None = None


class Tools:
    """The tools, below one folder ``root``, with the models of a preset."""

    def __init__(self, root: Path, preset: str, device: str) -> None:
        if not root.is_dir():
            raise InputError(f"expected a folder as the root of all paths, got {root}; make it, or name another --root")
        find_preset(preset)
        self.root, self.preset, self.device = root.resolve(), preset, device

    def confine(self, place: str) -> Path:
        """A path below the root; raises InputError for one that leads out of it, by links too."""
        try:
            path = (self.root / place).resolve()
            inside = path.is_relative_to(self.root)
            path.exists()
        except (OSError, ValueError, RuntimeError):  # a name that no file can have, or links in a circle
            inside = False
        if not place or not inside:
            raise InputError(
                f"expected a path below {self.root}, got {place!r:.200}; name one there, or start with another --root"
            )
        return path

    def segment(self, images: str, classes: str, out: str, callbacks: Callbacks, **options: Any) -> Told:
        """Find classes in an image or a folder of images, and keep what relabel needs."""
        given, place = self._find(images), self._find_new(out)
        self._refuse_links(given)
        asked = {"models": self.preset, "device": self.device} | {key: one for key, one in options.items() if one is not None}
        return self._tell(annofree.segment(given, classes, out=place, keep_encodings=True, callbacks=callbacks, **asked))

    def relabel(self, run: str, classes: str, out: str, callbacks: Callbacks) -> Told:
        """Ask a run for other names; no image is looked at again, but to draw on it."""
        given, place = self._find(run), self._find_new(out)
        images = find_images_root(given)  # of a run that came from elsewhere they may be anywhere
        inside = images is not None and images.resolve().is_relative_to(self.root)
        return self._tell(annofree.relabel(given, classes, out=place, overlays=inside, callbacks=callbacks))

    def report(self, run: str) -> Told:
        """Write the page of a run."""
        given = self._find(run)
        return Told({"page": self._name(annofree.report(given))}, draw_run(given))

    def describe(self) -> Told:
        """What this machine has."""
        return Told(annofree.doctor() | {"root": str(self.root), "preset": self.preset})

    def _find(self, place: str) -> Path:
        path = self.confine(place)
        if not path.exists():
            raise InputError(f"expected something at {place!r:.200} below {self.root}, and nothing is there")
        return path

    def _refuse_links(self, folder: Path) -> None:
        """Raise InputError for a link below a folder that leads out of the root."""
        for inside, folders, files in os.walk(folder):
            for one in (Path(inside, name) for name in (*folders, *files)):
                if one.is_symlink():
                    self.confine(str(one))

    def _find_new(self, place: str) -> Path:
        path = self.confine(place)
        if path == self.root:
            raise InputError(f"expected a folder of its own to write to, got the root {self.root}; name one in it")
        return path

    def _name(self, path: Path) -> str:
        path = path.resolve()
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def _tell(self, run: RunResult) -> Told:
        counts: Counter[str] = Counter()
        images = 0
        for _, found in run.read_detections():
            counts.update(found.labels.tolist())
            images += 1
        files = {"annotations": "annotations.json", "about": "run.json", "overlays": "overlays"}
        facts = {
            "run": self._name(run.out),
            "images": images,
            "instances": sum(counts.values()),
            "by_class": dict(counts.most_common()),
            "failed": {"count": len(run.failed), "first": dict(islice(run.failed.items(), _LISTED))},
            "files": {what: self._name(run.out / name) for what, name in files.items() if (run.out / name).exists()},
            "remarks": list(run.summary.get("remarks", [])),
        }
        return Told(facts, draw_run(run.out))


def draw_run(run: Path) -> bytes | None:
    """A sheet of the first overlays of a run, at most 100 kB as JPEG; None for a run without."""
    overlays = sorted(path for path in islice((run / "overlays").rglob("*"), 1000) if path.is_file())[:_SHOWN]
    opened = [(path, open_overlay(run, path.relative_to(run).as_posix())) for path in overlays]
    shown = [Thumbnail(Image(np.array(picture), path.name), path.stem) for path, picture in opened if picture is not None]
    if not shown:
        return None
    sheet = draw_contact_sheet(run.name, shown, columns=min(3, len(shown)), side=480 if len(shown) == 1 else 240)
    return reduce_picture(sheet)


def reduce_picture(picture: PIL.Image.Image, most: int = MOST_BYTES) -> bytes:
    """A JPEG of at most ``most`` bytes, of less quality and then of fewer pixels until it is.

    >>> len(reduce_picture(PIL.Image.effect_noise((900, 900), 90).convert("RGB"))) <= MOST_BYTES
    True
    """
    while True:
        for quality in _QUALITIES:
            file = BytesIO()
            picture.save(file, "JPEG", quality=quality)
            if file.tell() <= most or max(picture.size) == 1:
                return file.getvalue()
        picture = picture.resize((max(1, picture.width // 2), max(1, picture.height // 2)))
