"""The folder that a run leaves behind: annotations.json, run.json and overlays/."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.formats.files import write_atomic, write_json
from annofree.formats.overlay import draw_overlay
from annofree.structures import Detections, Image

__all__ = ["RunFolder"]

_LONGEST_SIDE = 65_500  # px, the most that a JPEG can hold
_LONGEST_NAME = 150  # bytes; file systems take 255, and room is needed for endings


@dataclass
class RunFolder:
    """An output folder: overlays are written as they come, the rest by ``finish``, best called in a ``finally``.

    ``names`` are the classes asked for, whose category ids count from 1; ``root`` is the folder that file names are
    relative to, without which they stay as given.
    """

    out: Path
    names: tuple[str, ...]
    root: Path | None = None
    _coco: CocoFile = field(init=False)
    _taken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._coco = CocoFile.with_categories(dict(enumerate(self.names, 1)))

    @classmethod
    def create(cls, out: Path, names: Sequence[str], *, root: Path | None = None) -> RunFolder:
        """Make the folder, with its parents; raises InputError when it is a file or cannot be written to."""
        try:
            (out / "overlays").mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=out):  # a trial, for permissions alone do not tell (full or read-only disks)
                pass
        except (FileExistsError, NotADirectoryError):
            raise InputError(
                f"expected a folder for results, but a file is in the way of {out}; choose another --out"
            ) from None
        except OSError as problem:
            raise InputError(
                f"expected a folder that can be written to, but {out} cannot: {problem.strerror}; choose another --out"
            ) from None
        return cls(out, tuple(names), root)

    def add(self, path: Path, image: Image, detections: Detections) -> None:
        """Write the overlay of one picture and keep its annotations; raises InputError if they were named otherwise."""
        if detections.names != self.names:
            raise InputError(f"expected detections of the classes {list(self.names)}, got {list(detections.names)}")
        name = self._name_of(path)
        overlay = self._free_overlay(name if self.root else PurePosixPath(name.name))
        (self.out / overlay).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.out / overlay, lambda temporary: _save_overlay(temporary, image, detections))
        image_id = self._coco.add_image(str(name), image.size, overlay=str(overlay))
        self._coco.add_annotations(detections.to_coco(image_id))

    @property
    def images(self) -> int:
        """Pictures added so far."""
        return len(self._coco.images)

    @property
    def instances(self) -> int:
        """Instances added so far."""
        return len(self._coco.annotations)

    def finish(self, run: Mapping[str, Any]) -> None:
        """Write annotations.json with all that was added so far, and ``run`` as run.json; may be called again."""
        self._coco.write(self.out / "annotations.json")
        write_json(self.out / "run.json", dict(run), indent=2)

    def _name_of(self, path: Path) -> PurePosixPath:
        place = path.parent.resolve() / path.name
        if self.root and place.is_relative_to(self.root.resolve()):
            path = place.relative_to(self.root.resolve())
        # A name that is not valid Unicode cannot stand in a JSON file.
        return PurePosixPath(os.fsencode(path.as_posix()).decode("utf-8", "replace"))

    def _free_overlay(self, name: PurePosixPath) -> PurePosixPath:
        """Name the overlay after its picture: a.jpg; if that is taken, by a.png say, then a.webp.jpg, a-2.jpg, a-3.jpg."""
        if name.is_absolute() or ".." in name.parts:
            name = PurePosixPath(name.name)
        stem = name.stem.encode()[:_LONGEST_NAME].decode("utf-8", "ignore")
        candidates = [f"{stem}.jpg", f"{stem}{name.suffix}.jpg", *(f"{stem}-{k}.jpg" for k in range(2, len(self._taken) + 3))]
        overlays = [PurePosixPath("overlays") / name.parent / candidate for candidate in candidates]
        free = next(o for o in overlays if str(o).casefold() not in self._taken)  # some file systems take a.jpg for A.jpg
        self._taken.add(str(free).casefold())
        return free


def _save_overlay(path: Path, image: Image, detections: Detections) -> None:
    picture = draw_overlay(image, detections)
    if max(picture.size) > _LONGEST_SIDE:
        picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    picture.save(path, quality=92, subsampling=0)  # chroma at full size, or contours and tags fray
