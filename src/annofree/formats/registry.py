"""The registry of formats, and the one way to write any of them: whole or not at all, read back, and compared.

Each export is a folder with ``fidelity.json``, which reports what the format could not represent.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, get_args

from annofree.errors import InputError, build_unknown_error
from annofree.formats import cvat, voc, yolo
from annofree.formats.annotations import AnnotatedImage, AnnotatedImages
from annofree.formats.coco import CocoFile
from annofree.formats.coco_annotations import read_annotated_images
from annofree.formats.coco_export import read_coco, stream_annotations, write_coco, write_coco_polygons
from annofree.formats.label_studio import tasks as label_studio
from annofree.formats.labelme import read_labelme, write_labelme
from annofree.formats.passed_over import PassedOver
from annofree.formats.png import read_index_pngs, write_index_pngs
from annofree.formats.round_trip import Fidelity, compare
from annofree.formats.values import find_image
from annofree.io.atomic import make_folder
from annofree.io.files.paths import confine, copy_file
from annofree.io.files.scratch import open_scratch, remove_scratch

__all__ = ["FORMATS", "Format", "Images", "export", "find_format", "read", "read_run"]

Images = Literal["none", "copy", "link"]
Progress = Callable[[int, int], None]

_REPORT = "fidelity.json"


@dataclass(frozen=True)
class Format:
    """One format: how it is written to a folder and read from a path, and where its images go.

    Both go image by image; ``whole`` reads a whole file if that preserves more.  A reader tells its ``PassedOver`` of all that
    it does not give as it stands.  ``by_stem`` says that an image's files are found by its name without ending; ``crowds``
    whether it supports crowd regions.
    """

    name: str
    about: str
    write: Callable[[AnnotatedImages, Path], None]
    read: Callable[[Path, Path | None, PassedOver | None], AnnotatedImages]
    images: str = "images"
    by_stem: bool = False
    crowds: bool = False
    whole: Callable[[Path, Path | None, PassedOver | None], CocoFile] | None = None


FORMATS: Mapping[str, Format] = {
    format_.name: format_
    for format_ in (
        Format("coco", "COCO instances, masks as run lengths", write_coco, stream_annotations, crowds=True, whole=read_coco),
        Format(
            "coco-polygons",
            "COCO instances, masks as polygons",
            write_coco_polygons,
            stream_annotations,
            crowds=True,
            whole=read_coco,
        ),
        Format("yolo-seg", "YOLO segmentation", yolo.write_yolo_masks, yolo.read_yolo, yolo.IMAGES, by_stem=True),
        Format("yolo-det", "YOLO detection, boxes only", yolo.write_yolo_boxes, yolo.read_yolo, yolo.IMAGES, by_stem=True),
        Format("voc", "Pascal VOC, XML and PNGs", voc.write_voc, voc.read_voc, voc.IMAGES, True, True),
        Format("png", "index PNGs, one class a pixel", write_index_pngs, read_index_pngs, by_stem=True),
        Format("labelme", "LabelMe JSON", write_labelme, read_labelme, "", by_stem=True, crowds=True),
        Format(
            "label-studio",
            "Label Studio predictions",
            label_studio.write_label_studio,
            label_studio.read_label_studio,
            label_studio.IMAGES,
        ),
        Format("cvat", "CVAT for images 1.1", cvat.write_cvat, cvat.read_cvat, cvat.IMAGES),
    )
}
"""The formats by name."""


def find_format(name: str) -> Format:
    """Return a format; raises InputError with similar names for an unknown one."""
    if name not in FORMATS:
        raise build_unknown_error("format", name, FORMATS)
    return FORMATS[name]


def read(name: str, path: Path, images: Path | None = None, passed: PassedOver | None = None) -> CocoFile:
    """Read annotations in a format; ``images`` is the folder of the images, for formats that have no sizes.

    ``passed`` is told of all that is passed over.  Raises InputError where the files are missing, damaged, or something else,
    and for objects that cannot be read, unless ``passed`` is to skip them.
    """
    format_ = find_format(name)
    if not path.exists():
        raise InputError(f"expected {format_.about} at {path}, got nothing there; check the path")
    with _understood(format_, path):
        if format_.whole:
            return format_.whole(path, images, passed)
        return format_.read(path, images, passed).gather()


def read_run(path: Path, info: Mapping[str, Any]) -> AnnotatedImages:
    """Read the annotations of a run image by image; ``info`` is the provenance.  Raises InputError as ``read`` does."""
    format_ = FORMATS["coco"]
    with _understood(format_, path):
        images = read_annotated_images(path, info)
    return replace(images, each=lambda: _understood_each(format_, path, images))


def _understood_each(format_: Format, path: Path, images: AnnotatedImages) -> Iterator[AnnotatedImage]:
    with _understood(format_, path):
        yield from images


@contextmanager
def _understood(format_: Format, path: Path) -> Iterator[None]:
    """Turn errors of reading a file into one line."""
    try:
        yield
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OSError, RecursionError) as problem:
        why = f"no {problem} in it" if isinstance(problem, KeyError) else " ".join(str(problem).split())
        raise InputError(f"expected {format_.about} at {path}, but it is something else or damaged ({why})") from None


def export(
    file: CocoFile | AnnotatedImages,
    name: str,
    out: Path,
    *,
    images: Images = "none",
    image_root: Path | None = None,
    on_progress: Progress = lambda done, total: None,
    passed: PassedOver | None = None,
) -> Fidelity:
    """Write a file to a folder in a format, read it back, and report what was lost, also in ``fidelity.json``.

    ``AnnotatedImages`` are gone through one by one, several times; their names alone stay in memory.  ``images`` copies or
    links the images of ``image_root`` to where the format wants them.  ``on_progress`` counts each image twice: written,
    compared; ``passed`` is what the reader of the file was told, and goes into the report.  Raises InputError for an unknown
    format, a folder that is not empty, missing images, and names that the format cannot hold; then nothing is written.
    """
    format_ = find_format(name)
    remove_scratch(out.resolve(), "export")  # of a call that was killed as it was done
    _check(out, images, image_root)
    given = file if isinstance(file, AnnotatedImages) else AnnotatedImages.of(file)
    kept, crowds = _without_crowds(given) if not format_.crowds else (given, 0)
    before = [image.file_name for image in given]
    now = before
    if images != "none" or not name.startswith("coco"):
        now = _portable(before, format_)
        kept = _renamed(kept, now)
    out = out.resolve()
    try:
        with open_scratch(out, "export") as folder:
            if images != "none" and image_root is not None:
                _place(list(zip(before, now, strict=True)), image_root, folder / format_.images, images)
            format_.write(_counted(kept, 0, len(before), on_progress), folder)
            compared = _counted(kept, len(before), len(before), on_progress)
            report = compare(name, compared, format_.read(folder, None, None), by_stem=format_.by_stem)
            report.crowds_left_out, report.passed = crowds, passed or PassedOver()
            report.pictures_renamed = {old: new for old, new in zip(before, now, strict=True) if old != new}
            report.write(folder / _REPORT)
            folder.replace(out)
    except UnicodeEncodeError as problem:
        raise InputError(f"expected names that {format_.about} can hold, got {problem.object!r:.120}; rename it") from None
    except OSError as problem:
        raise InputError(f"{format_.about} cannot be written to {out}: {problem.strerror}; nothing was written") from None
    return report


def _check(out: Path, images: str, image_root: Path | None) -> None:
    if images not in get_args(Images):
        raise build_unknown_error("way with images", images, get_args(Images))
    if images != "none" and (image_root is None or not image_root.is_dir()):
        raise InputError(f"expected --image-root, the folder of the images to {images}, got {image_root or 'none'}")
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"expected a new or empty folder to write to, but {out} has something in it; choose another --out")
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InputError(f"expected a folder that can be written to, but {out} cannot: {problem.strerror}") from None
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"expected a folder that can be written to, but {out.parent} cannot; choose another --out")


def _without_crowds(images: AnnotatedImages) -> tuple[AnnotatedImages, int]:
    def change(picture: AnnotatedImage) -> AnnotatedImage:
        return replace(picture, things=tuple(thing for thing in picture.things if not thing.crowd))

    return images.map(change), sum(thing.crowd for picture in images for thing in picture.things)


def _portable(names: Iterable[str], format_: Format) -> list[str]:
    """Name images so that they stay in their folder, no two take the same files, and YOLO finds their labels."""
    taken = set() if format_.images else {PurePosixPath(_REPORT).stem}
    return [_free(name, format_.by_stem, taken) for name in names]


def _renamed(images: AnnotatedImages, names: list[str]) -> AnnotatedImages:
    def each() -> Iterator[AnnotatedImage]:
        return (replace(image, file_name=name) for image, name in zip(images, names, strict=True))

    return replace(images, each=each)


def _counted(images: AnnotatedImages, start: int, count: int, on_progress: Progress) -> AnnotatedImages:
    """Tell how many of ``count`` images were gone through, of both times, whenever they are."""

    def each() -> Iterator[AnnotatedImage]:
        on_progress(start, 2 * count)
        for number, image in enumerate(images, start + 1):
            yield image
            on_progress(number, 2 * count)

    return replace(images, each=each)


def _free(name: str, by_stem: bool, taken: set[str]) -> str:
    path = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/")))
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts:
        path = PurePosixPath(path.name)
    # YOLO replaces the last "images" of a path with "labels" to find labels.
    parts = [f"{part}_" if part in ("images", "labels") and by_stem else part for part in path.parts[:-1]]
    base = PurePosixPath(*parts, path.name)
    tries = [base, *(base.with_name(f"{base.stem}-{k}{base.suffix}") for k in range(2, len(taken) + 3))]
    keys = [str(t.with_suffix("") if by_stem else t).casefold() for t in tries]  # some file systems take A.jpg for a.jpg
    free = next(k for k, key in enumerate(keys) if key not in taken)
    taken.add(keys[free])
    return str(tries[free])


def _place(places: list[tuple[str, str]], root: Path, folder: Path, images: Images) -> None:
    """Copy or link images, each name to its place; all are looked for, inside ``root``, before the first is copied."""
    found = [(find_image(root, name), folder / place) for name, place in places]
    missing = [name for (name, _), (source, _) in zip(places, found, strict=True) if source is None]
    if missing:
        raise InputError(f"expected {len(places)} images in {root}, but {len(missing)} are not there, such as {missing[0]}")
    inside = [(confine(root, source.relative_to(root)), place) for source, place in found if source is not None]
    for source, place in inside:
        if images == "copy":
            copy_file(source, place)
        else:
            make_folder(place.parent)
            place.symlink_to(source.resolve())
