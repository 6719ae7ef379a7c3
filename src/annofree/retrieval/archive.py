"""Image archives: the images that were retrieved for each name, and the pseudo-masks that were made of them.

    ARCHIVE/
    ├── archive.json        names, members with their scores, places, and how all that came about; a checksum of all that
    ├── sheets/             one contact sheet a name, for people
    ├── masks.jsonl         one pseudo-mask a line, appended as they are made
    ├── masks-about.json    the model that made them
    └── looks/              what a CLIP saw of the masks, for a bank; may be deleted

An image may be in several archives: it has one id and one place, and a score for each name that retrieved it.  A place is
a path, or ``shard.tar::member`` for an image inside a tar.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from annofree.errors import InputError
from annofree.io.atomic import make_folder, name_errors, write_json
from annofree.io.files.checksums import add_checksum, take_checksum
from annofree.io.files.lock import acquire_lock
from annofree.io.image_sources import read_place
from annofree.io.read_json import read_json_object, read_own_json
from annofree.io.regular import require_regular
from annofree.structures import RLE, Image

__all__ = ["Archive", "MaskWriter", "Member", "PseudoMask", "read_masks"]

_FORMAT = "annofree archive 1"


@dataclass(frozen=True)
class Member:
    """One image of a name's archive, and how well it fits: ``score`` is the cosine of image and name."""

    id: str
    score: float


@dataclass(frozen=True)
class Archive:
    """The images of each name, best first.

    ``names`` (K) in the order in which they were asked for; ``members`` by name, possibly none; ``places`` by id, where each
    image is; ``about`` says how they were retrieved.  Raises InputError for members without a name, names without members,
    ids without a place, and an image that is twice in one name's archive.

    >>> archive = Archive(("dog", "cat"), {"dog": (Member("1.jpg", 0.3),), "cat": (Member("1.jpg", 0.2),)}, {"1.jpg": "/1.jpg"})
    >>> archive.ids, archive.list_classes("1.jpg")
    (('1.jpg',), ('dog', 'cat'))
    """

    names: tuple[str, ...]
    members: Mapping[str, tuple[Member, ...]]
    places: Mapping[str, str]
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.names) or set(self.names) != set(self.members):
            raise InputError(f"expected the members of {list(self.names)}, each name once, got those of {list(self.members)}")
        for name, members in self.members.items():
            ids = [m.id for m in members]
            if len(set(ids)) < len(ids):
                raise InputError(f"expected each image once in the archive of {name!r}, got {_doubled(ids)!r} more than once")
            nowhere = next((i for i in ids if i not in self.places), None)
            if nowhere is not None:
                raise InputError(f"expected a place for each image, got none for {nowhere!r} in the archive of {name!r}")

    @classmethod
    def read(cls, folder: Path) -> Archive:
        """Read ``archive.json`` of a folder; raises InputError when there is none or it is something else."""
        path = folder / "archive.json"
        try:
            held = read_json_object(path)
            if held["format"] != _FORMAT:
                raise InputError(f"expected {_FORMAT!r} in {path}, got {held['format']!r}; retrieve the images again")
            held = take_checksum(held)
            members = {name: tuple(Member(i, float(s)) for i, s in rows) for name, rows in held["members"].items()}
            if not all(isinstance(text, str) for text in (*held["names"], *held["places"].values())):
                raise TypeError("a name or a place is no text")
            return cls(tuple(held["names"]), members, held["places"], dict(held["about"]))
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            raise InputError(
                f"expected an archive's archive.json in {folder}, but it cannot be read: {problem}; "
                "make one with `annofree retrieve`"
            ) from None

    def write(self, folder: Path) -> None:
        """Write ``archive.json``, whole or not at all; makes the folder."""
        make_folder(folder)
        held = {
            "format": _FORMAT,
            "names": self.names,
            "members": {name: [[m.id, m.score] for m in self.members[name]] for name in self.names},
            "places": self.places,
            "about": self.about,
        }
        write_json(folder / "archive.json", add_checksum(held), ascii_only=True)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Each image once: those of the first name, best first, then what the second one adds, and so on."""
        return tuple(dict.fromkeys(m.id for name in self.names for m in self.members[name]))

    def open(self, id: str) -> Image:  # noqa: A002 -- the word the noun uses
        """Read an image; raises InputError for an id that is not here, and ImageError when it cannot be read."""
        if id not in self._classes:
            raise InputError(f"expected the id of an image in the archive, got {id!r}")
        return read_place(self.places[id], id)

    def list_classes(self, id: str) -> tuple[str, ...]:  # noqa: A002
        """The names that retrieved an image, in the order of ``names``; none for an image that is not here."""
        return self._classes.get(id, ())

    @cached_property
    def _classes(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for name in self.names:
            for member in self.members[name]:
                found[member.id] = (*found.get(member.id, ()), name)
        return found


def _doubled(ids: list[str]) -> str:
    return next(i for i in ids if ids.count(i) > 1)


@dataclass(frozen=True)
class PseudoMask:
    """The object that a model, and no person, found in an image.

    ``rle`` is COCO's compressed run lengths: ``size`` [H, W] of the whole image and ``counts`` as str; ``quality`` is the
    model's own estimate in 0 .. 1, 0 for an empty mask.
    """

    id: str
    rle: RLE
    quality: float


def read_masks(folder: Path) -> dict[str, PseudoMask]:
    """Read ``masks.jsonl`` of an archive's folder, by id; nothing where there is none yet.

    A last line that was cut short, as by a kill, is passed over; raises InputError for any other line that is no mask.
    """
    path = folder / "masks.jsonl"
    try:
        text = require_regular(path).read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    except OSError as problem:
        raise InputError(f"expected the masks of an archive in {path}, but they cannot be read: {problem.strerror}") from None
    masks: dict[str, PseudoMask] = {}
    for number, line in enumerate(text.split("\n")[:-1], start=1):  # what follows the last line break is torn, or nothing
        try:
            held = json.loads(line)
            sides = [int(side) for side in held["size"]]
            rle = {"size": sides, "counts": str(held["counts"])}
            if not isinstance(held["id"], str) or held["id"] in masks or min(sides) < 1:
                raise ValueError(f"{held['id']!r} is no id, has a mask already, or one without a size")
            if held.get("crc", _sum_line(held)) != _sum_line(held):
                raise ValueError("it is not as it was written")
            masks[held["id"]] = PseudoMask(held["id"], rle, float(held["quality"]))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as problem:
            raise InputError(
                f"expected a mask in line {number} of {path}, but it is none: {problem}; remove the line"
            ) from None
    return masks


def _sum_line(held: Mapping[str, Any]) -> int:
    """The checksum of a mask's line, of all that it holds but the checksum."""
    return zlib.crc32(json.dumps({key: value for key, value in held.items() if key != "crc"}).encode("ascii"))


class MaskWriter:
    """Appends to ``masks.jsonl`` of an archive's folder, and goes on where an earlier run was stopped.

    ``about``, the provenance of the masks, is written to ``masks-about.json``; ``done`` holds the ids that have a mask.
    Raises InputError when the masks that are there came about otherwise, naming what differs.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, MaskWriter(Path(folder)) as writer:
    ...     writer.add(PseudoMask("1.jpg", {"size": [2, 3], "counts": "06"}, 0.9))
    ...     sorted(writer.done), read_masks(Path(folder))["1.jpg"].quality
    (['1.jpg'], 0.9)
    """

    def __init__(self, folder: Path, about: Mapping[str, Any] | None = None) -> None:
        make_folder(folder)
        taken = f"expected one call at a time to mask {folder}, and another is at work; wait for it"
        self._lock = acquire_lock(folder / "lock", taken)
        try:
            self._open(folder, about)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, folder: Path, about: Mapping[str, Any] | None) -> None:
        self.done = set(read_masks(folder))
        if about is not None:
            _keep_about(folder / "masks-about.json", dict(about), new=not self.done)
        path = folder / "masks.jsonl"
        self._file = path.open("ab")
        whole = path.read_bytes().rfind(b"\n") + 1
        self._file.truncate(whole)  # else the next mask would be written onto a torn line

    def add(self, mask: PseudoMask) -> None:
        """Append a mask; raises InputError for an image that has one."""
        if mask.id in self.done:
            raise InputError(f"expected one mask an image, got a second one for {mask.id!r}")
        size, counts = [int(side) for side in mask.rle["size"]], mask.rle["counts"]
        text = counts.decode("ascii") if isinstance(counts, bytes) else counts
        held = {"id": mask.id, "size": size, "counts": text, "quality": float(mask.quality)}
        held["crc"] = _sum_line(held)
        with name_errors(Path(self._file.name)):
            self._file.write(json.dumps(held, allow_nan=False).encode("ascii") + b"\n")
            self._file.flush()
        self.done.add(mask.id)

    def close(self) -> None:
        """Close the file."""
        try:
            with name_errors(Path(self._file.name)):
                self._file.close()
        finally:
            self._lock.release()

    def __enter__(self) -> MaskWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _keep_about(path: Path, about: dict[str, Any], *, new: bool) -> None:
    """Write how masks come about, or check that those that are there came about in the same way."""
    about = json.loads(json.dumps(about))  # as it will be read again
    if path.exists() and not new:
        before = read_own_json(path, "how the masks came about", "delete it and masks.jsonl, and ask again")
        other = sorted(key for key in {*before, *about} if before.get(key) != about.get(key))
        if other:
            told = "; ".join(f"{key} was {before.get(key)!r}, now {about.get(key)!r}" for key in other)
            raise InputError(f"the masks in {path.parent} were made otherwise: {told}; delete masks.jsonl, or ask as before")
        return
    write_json(path, add_checksum(about), indent=2, ascii_only=True)
