"""The folder that a run leaves behind.

OUT
├── run.json          settings, models, versions, timings
├── annotations.json  instances (COCO), drawn in overlays/
├── labels/           label maps: PNG, classes.json, shares.json; drawn in overlays-semantic/
└── panoptic.json     panoptic maps (COCO), their PNGs in panoptic/
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import PIL.Image

from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.formats.files import make_folder, write_atomic, write_json
from annofree.formats.label_maps import ClassList, write_label_map
from annofree.formats.legend import draw_label_map
from annofree.formats.overlay import draw_overlay
from annofree.formats.panoptic import PanopticFile
from annofree.structures import Detections, Image, LabelMap

__all__ = ["RunFolder"]

_LONGEST_SIDE = 65_500  # px, the most that a JPEG can hold
_LONGEST_NAME = 150  # bytes; file systems take 255, and room is needed for endings
_NOT_PORTABLE = str.maketrans(":\\", "__")


@dataclass
class RunFolder:
    """An output folder: overlays are written as they come, the rest by ``finish``, best called in a ``finally``.

    ``names`` are the classes asked for, whose category ids count from 1; ``root`` is the folder that file names are
    relative to, without which they stay as given; ``tasks`` are what will be added, ``stuff`` the names that are no things.
    """

    out: Path
    names: tuple[str, ...]
    root: Path | None = None
    tasks: tuple[str, ...] = ("instance",)
    stuff: tuple[str, ...] = ()
    _coco: CocoFile = field(init=False)
    _panoptic: PanopticFile | None = field(init=False, default=None)
    _classes: ClassList | None = field(init=False, default=None)
    _shares: dict[str, dict[str, float]] = field(init=False, default_factory=dict)
    _taken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        categories = dict(enumerate(self.names, 1))
        self._coco = CocoFile.with_categories(categories)
        if "panoptic" in self.tasks:
            self._panoptic = PanopticFile.start(self.out / "panoptic.json", categories, self.stuff)

    @classmethod
    def create(
        cls,
        out: Path,
        names: Sequence[str],
        *,
        root: Path | None = None,
        tasks: Sequence[str] = ("instance",),
        stuff: Sequence[str] = (),
    ) -> RunFolder:
        """Make the folder, with its parents; raises InputError when it is a file or cannot be written to."""
        try:
            out.mkdir(parents=True, exist_ok=True)
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
        return cls(out, tuple(names), root, tuple(tasks), tuple(stuff))

    def add(self, path: Path, image: Image, detections: Detections) -> None:
        """Write the overlay of one picture and keep its annotations; raises InputError if they were named otherwise."""
        self.add_answers(path, image, detections=detections)

    def add_answers(
        self,
        path: Path,
        image: Image,
        *,
        detections: Detections | None = None,
        labels: LabelMap | None = None,
        segments: tuple[Any, Sequence[Mapping[str, Any]]] | None = None,
    ) -> None:
        """Write what was found in one picture: instances, a label map, a panoptic map (H, W) with its segments_info.

        Raises InputError for instances of other classes than the folder's.
        """
        if detections is not None and detections.names != self.names:
            raise InputError(f"expected detections of the classes {list(self.names)}, got {list(detections.names)}")
        name = self._name_of(path)
        stem = self._free_stem(name if self.root else PurePosixPath(name.name))
        extra = {}
        if detections is not None:
            extra["overlay"] = self._drawn(f"overlays/{stem}.jpg", draw_overlay(image, detections))
        if labels is not None:
            extra["labels"] = self._labelled(stem, image, labels)
        if segments is not None and self._panoptic is not None:
            name_of_map = self._portable(stem) + ".png"
            self._panoptic.add(name_of_map, *segments)
            extra["panoptic"] = f"panoptic/{name_of_map}"
        image_id = self._coco.add_image(str(name), image.size, **extra)
        self._coco.add_annotations(detections.to_coco(image_id) if detections is not None else [])

    def _drawn(self, place: str, picture: PIL.Image.Image) -> str:
        make_folder((self.out / place).parent)
        write_atomic(self.out / place, lambda temporary: _save(temporary, picture))
        return place

    def _labelled(self, stem: str, image: Image, labels: LabelMap) -> str:
        place = self.out / "labels" / f"{stem}.png"
        make_folder(place.parent)
        if self._classes is None:
            self._classes = ClassList.of(labels)
            self._classes.write(self.out / "labels")
        write_label_map(place, labels)
        self._shares[stem] = labels.shares()
        self._drawn(f"overlays-semantic/{stem}.jpg", draw_label_map(image, labels))
        return f"labels/{stem}.png"

    @property
    def images(self) -> int:
        """Pictures added so far."""
        return len(self._coco.images)

    @property
    def instances(self) -> int:
        """Instances added so far."""
        return len(self._coco.annotations)

    def shares(self) -> dict[str, float]:
        """The mean part of a picture that each name of the label maps has, the largest first."""
        sums: dict[str, float] = {}
        for of_one in self._shares.values():
            for name, share in of_one.items():
                sums[name] = sums.get(name, 0.0) + share / len(self._shares)
        return dict(sorted(sums.items(), key=lambda item: -item[1]))

    def finish(self, run: Mapping[str, Any]) -> None:
        """Write the JSON files with all that was added so far, and ``run`` as run.json; may be called again."""
        if "instance" in self.tasks:
            self._coco.write(self.out / "annotations.json")
        if self._shares:
            write_json(self.out / "labels" / "shares.json", {"mean": self.shares(), "pictures": self._shares}, indent=2)
        if self._panoptic is not None:
            self._panoptic.write()
        write_json(self.out / "run.json", dict(run), indent=2)

    def _portable(self, stem: str) -> str:
        """Name panoptic maps without the signs that some systems read as parts of a path; the file refuses those."""
        safe = stem.translate(_NOT_PORTABLE)
        return stem if safe == stem else self._free_stem(PurePosixPath(f"{safe}.png"))

    def _name_of(self, path: Path) -> PurePosixPath:
        place = path.parent.resolve() / path.name
        if self.root and place.is_relative_to(self.root.resolve()):
            path = place.relative_to(self.root.resolve())
        # A name that is not valid Unicode cannot stand in a JSON file.
        return PurePosixPath(os.fsencode(path.as_posix()).decode("utf-8", "replace"))

    def _free_stem(self, name: PurePosixPath) -> str:
        """Name results after their picture: a; if that is taken, by a.png say, then a.webp, a-2, a-3."""
        if name.is_absolute() or ".." in name.parts:
            name = PurePosixPath(name.name)
        stem = name.stem.encode()[:_LONGEST_NAME].decode("utf-8", "ignore")
        candidates = [stem, f"{stem}{name.suffix}", *(f"{stem}-{k}" for k in range(2, len(self._taken) + 3))]
        places = [str(name.parent / candidate) for candidate in candidates]
        free = next(p for p in places if p.casefold() not in self._taken)  # some file systems take a.jpg for A.jpg
        self._taken.add(free.casefold())
        return free


def _save(path: Path, picture: PIL.Image.Image) -> None:
    if max(picture.size) > _LONGEST_SIDE:
        picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    picture.save(path, quality=92, subsampling=0)  # chroma at full size, or contours and tags fray
