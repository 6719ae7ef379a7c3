"""Layout of a run folder.

OUT
├── run.json          settings, models, versions, environments, timings
├── annotations.json  instances (COCO), drawn in overlays/
├── labels/           label maps: PNG, classes.json, shares.json; drawn in overlays-semantic/
├── panoptic.json     panoptic maps (COCO), their PNGs in panoptic/
├── quarantine.json   images that gave no result, and why
└── shards/           state for resuming
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import PIL.Image

from annofree.errors import InputError
from annofree.formats.label_maps import CLASSES_FILE, ClassList, write_label_map
from annofree.formats.panoptic import PanopticFile
from annofree.io.atomic import make_folder, write_atomic, write_json
from annofree.io.files.checksums import measure_file
from annofree.io.files.paths import confine
from annofree.render.label_overlay import draw_label_map
from annofree.render.overlay import draw_overlay
from annofree.runs.store.names import ResultName
from annofree.runs.store.results import Row, Rows, write_annotations, write_panoptic, write_shares
from annofree.structures import Detections, Image, LabelMap

__all__ = ["RunFolder"]

_LONGEST_SIDE = 65_500  # px, the most that a JPEG can hold


@dataclass
class RunFolder:
    """An output folder: ``record`` writes the files of one image, ``finish`` those of all, ``write_summary`` how it went.

    ``names`` are the classes asked for, whose category ids count from 1; ``tasks`` are what is recorded, ``stuff`` the names
    that are no things.  Without ``overlays`` nothing is drawn; ``timed("draw")`` counts what that takes.  ``written`` has the
    files since it was last emptied.
    """

    out: Path
    names: tuple[str, ...]
    tasks: tuple[str, ...] = ("instance",)
    stuff: tuple[str, ...] = ()
    overlays: bool = True
    written: list[Path] = field(default_factory=list)
    timed: Callable[[str], AbstractContextManager[None]] = lambda part: nullcontext()
    _classes: ClassList | None = field(init=False, default=None)

    @classmethod
    def create(
        cls,
        out: Path,
        names: Sequence[str],
        *,
        tasks: Sequence[str] = ("instance",),
        stuff: Sequence[str] = (),
        overlays: bool = True,
    ) -> RunFolder:
        """Create the folder with its parents; raises InputError if it is a file or not writable."""
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
        return cls(out, tuple(names), tuple(tasks), tuple(stuff), overlays)

    def record(
        self,
        name: ResultName,
        size: tuple[int, int],
        image: Image | None = None,
        *,
        detections: Detections | None = None,
        labels: LabelMap | None = None,
        segments: tuple[Any, Sequence[Mapping[str, Any]]] | None = None,
    ) -> Row:
        """Write the files of one image of ``size`` (H, W) and return its row: what ``finish`` needs to know of it.

        There may be instances, a label map, and a panoptic map (H, W) with its segments_info; overlays are drawn on ``image``
        where there is one.  Raises InputError for unknown classes.
        """
        self._check(detections, labels)
        before = len(self.written)
        drawn = image if self.overlays else None
        row: Row = {"image": {"file_name": name.file_name, "height": size[0], "width": size[1]}}
        if detections is not None:
            row["annotations"] = detections.to_coco(0)
            if drawn is not None:
                with self.timed("draw"):
                    row["image"]["overlay"] = self._drawn(f"overlays/{name.stem}.jpg", draw_overlay(drawn, detections))
        if labels is not None:
            row["shares"] = labels.compute_shares()
            row["image"]["labels"] = self._labeled(name.stem, labels)
            if drawn is not None:
                with self.timed("draw"):
                    self._drawn(f"overlays-semantic/{name.stem}.jpg", draw_label_map(drawn, labels))
        if segments is not None and "panoptic" in self.tasks:
            row["panoptic"] = self._panoptic(f"{name.portable}.png", segments)
            row["image"]["panoptic"] = f"panoptic/{name.portable}.png"
        own = [path for path in self.written[before:] if path.name != CLASSES_FILE]
        files = {path.relative_to(self.out).as_posix(): measure_file(path) for path in own}
        return row | ({"files": files} if files else {})

    def take(self, place: str, data: bytes) -> None:
        """Write a file that another folder of the same run has at a place."""
        write_atomic(self._place(place), lambda temporary: temporary.write_bytes(data))

    def finish(
        self,
        rows: Rows,
        failed: Sequence[Mapping[str, str]] = (),
        shares: Mapping[str, float] | None = None,
    ) -> None:
        """Write the files of all images; the same rows give the same bytes.

        ``failed`` are the images that gave no result: id and reason; ``shares`` the mean shares of the names in label maps.
        """
        if "instance" in self.tasks:
            write_annotations(self.out / "annotations.json", self.names, rows)
        if shares:
            write_shares(self.out / "labels" / "shares.json", shares, rows)
        if "panoptic" in self.tasks:
            write_panoptic(self.out / "panoptic.json", self._panoptic_file().categories, rows)
        self._quarantine(failed)

    def write_summary(self, run: Mapping[str, Any]) -> None:
        """Write run.json, last of all."""
        write_json(self.out / "run.json", dict(run), indent=2)

    def _quarantine(self, failed: Sequence[Mapping[str, str]]) -> None:
        place = self.out / "quarantine.json"
        if failed:
            write_json(place, list(failed), indent=1, ascii_only=True)
        else:
            place.unlink(missing_ok=True)

    def _check(self, detections: Detections | None, labels: LabelMap | None) -> None:
        if detections is not None and detections.names != self.names:
            raise InputError(f"expected detections of the classes {list(self.names)}, got {list(detections.names)}")
        own = {name for k, name in enumerate(labels.names) if k != labels.background} if labels is not None else set()
        if not own <= set(self.names):
            raise InputError(f"expected label maps of the classes {list(self.names)}, got {sorted(own - set(self.names))} too")

    def _drawn(self, place: str, image: PIL.Image.Image) -> str:
        path = self._place(place)
        write_atomic(path, lambda temporary: temporary.write_bytes(_jpeg(image)))
        return place

    def _labeled(self, stem: str, labels: LabelMap) -> str:
        if self._classes is None:
            self._classes = ClassList.of(labels)
            self._classes.write(self.out / "labels")
            self._place("labels/classes.json")
        write_label_map(self._place(f"labels/{stem}.png"), labels)
        return f"labels/{stem}.png"

    def _panoptic(self, png: str, segments: tuple[Any, Sequence[Mapping[str, Any]]]) -> list[Row]:
        file = self._panoptic_file()
        file.add(png, *segments)
        self._place(f"panoptic/{png}")
        return [{k: v for k, v in rows[0].items() if k not in ("id", "image_id")} for rows in (file.images, file.annotations)]

    def _panoptic_file(self) -> PanopticFile:
        return PanopticFile.start(self.out / "panoptic.json", dict(enumerate(self.names, 1)), self.stuff)

    def _place(self, place: str) -> Path:
        path = confine(self.out, place)
        make_folder(path.parent)
        self.written.append(path)
        return path


def _jpeg(image: PIL.Image.Image) -> bytes:
    """Encode in memory, so that a full disk raises an error, which Pillow's own writing does not."""
    if max(image.size) > _LONGEST_SIDE:
        image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    file = BytesIO()
    image.save(file, "JPEG", quality=92, subsampling=0)  # chroma at full size, or contours and tags fray
    return file.getvalue()
