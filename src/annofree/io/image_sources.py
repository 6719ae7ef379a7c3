"""Images by the million: folders, lists of paths and WebDataset tars, one id and one place an image.

The id of an image is its path below the source's ``root``; inside a tar it is ``shard.tar::member``.  So its place is
``root/id``, wherever the root is.
"""

from __future__ import annotations

import os
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

from annofree.errors import ImageError, InputError
from annofree.io.images import SUFFIXES, decode_bytes, decode_image
from annofree.structures import Image

__all__ = ["Reader", "Source", "read_images", "read_place"]

Reader = Callable[[str, "str | None"], Image]
"""Returns the image of a place under an id, or raises ImageError; called in threads."""

_INSIDE = ".tar::"


def read_place(place: str, id: str | None = None) -> Image:  # noqa: A002 -- the word the noun uses
    """Read an image from its place, a path or ``shard.tar::member``, with Pillow's warnings let through; made for threads.

    Raises ImageError, one line naming the place, when there is no whole image.
    """
    tar, inside, member = place.partition(_INSIDE)
    if not inside:
        return decode_image(Path(place), id)
    path = tar + _INSIDE[:-2]
    try:
        offset, size = _members(path)[member]
        with Path(path).open("rb") as file:
            file.seek(offset)
            return decode_bytes(file.read(size), place, id)
    except ImageError:
        raise
    except KeyError:
        raise ImageError(f"expected a picture at {place}, but the tar has no such member") from None
    except (OSError, InputError) as problem:
        raise ImageError(f"expected a picture at {place}, but the tar cannot be read: {problem}") from None


@dataclass(frozen=True)
class Source:
    """The images of ``inputs``: folders, tars, text lists (``.txt``, a path a line) and single images.

    Folders are searched at every depth for images and tars, in sorted order; hidden files are passed over, and so is
    ``exclude``, the folder that results go to.  Paths in a list count from the list's own folder; its empty lines and those
    that begin with # are passed over.  Tars are uncompressed.

    Raises InputError for no input, for one that is missing or of another kind, and for a list or tar that cannot be read.
    """

    inputs: Sequence[Path]
    exclude: Path | None = None

    def __post_init__(self) -> None:
        if not self.inputs:
            raise InputError("expected pictures: a folder, a text list of paths or tars, got none; for example photos/")
        for given in self.inputs:
            if not given.is_file() and not given.is_dir():
                why = "neither" if given.exists() else "not there; check the spelling"
                raise InputError(f"expected a folder, a list, a tar or a picture, but {given} is {why}")

    @property
    def root(self) -> Path:
        """The deepest folder that holds everything; ids count from here."""
        common = ""
        for folder in self._folders():
            common = os.path.commonpath([common, folder]) if common else folder
        return Path(common)

    def list_ids(self) -> Iterator[str]:
        """The id of each image, once, in the same order each time; all ids, and nothing else, stay in memory."""
        prefix, seen = _prefix_from(self.root), set[str]()
        for folder, name in self._files():
            path = prefix(folder) + name
            inside = _members(os.path.join(folder, name)) if name.endswith(".tar") else None  # noqa: PTH118 -- by the million
            for id in (path,) if inside is None else (f"{path}::{member}" for member in inside):  # noqa: A001
                if id not in seen:
                    seen.add(id)
                    yield id

    def _folders(self) -> Iterator[str]:
        """The folders that the root has to hold."""
        for given in self.inputs:
            if given.is_dir():
                yield str(given.resolve())
            elif _is_list(given):
                yield from dict.fromkeys(folder for folder, _ in _listed(given))
            else:
                yield str(given.parent.resolve())

    def _files(self) -> Iterator[tuple[str, str]]:
        """The folder and the name of each image and tar."""
        for given in self.inputs:
            if given.is_dir():
                yield from _walked(given.resolve(), self.exclude.resolve() if self.exclude else None)
            elif _is_list(given):
                yield from _listed(given)
            else:
                yield str(given.parent.resolve()), given.name


def read_images(
    entries: Iterable[tuple[str, str]], threads: int = 4, ahead: int = 64, reader: Reader = read_place
) -> Iterator[tuple[str, str, Image | ImageError]]:
    """Read images, given by id and place, in threads: (id, place, image or why there is none), in order.

    At most ``ahead`` images are held.  Enter ``silence_pillow`` around this.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="annofree-read") as readers:
        coming: deque[tuple[str, str, Future[Image | ImageError]]] = deque()
        try:
            for id, place in entries:  # noqa: A001
                coming.append((id, place, readers.submit(_read, reader, place, id)))
                if len(coming) >= ahead:
                    yield _settled(coming.popleft())
            while coming:
                yield _settled(coming.popleft())
        finally:
            for _, _, left in coming:
                left.cancel()


def _read(reader: Reader, place: str, id: str) -> Image | ImageError:  # noqa: A002
    try:
        return reader(place, id)
    except ImageError as problem:
        return problem


def _settled(entry: tuple[str, str, Future[Image | ImageError]]) -> tuple[str, str, Image | ImageError]:
    id, place, image = entry  # noqa: A001
    return id, place, image.result()


def _is_list(path: Path) -> bool:
    return path.suffix.lower() == ".txt"


def _walked(top: Path, exclude: Path | None) -> Iterator[tuple[str, str]]:
    def refuse(problem: OSError) -> None:
        raise InputError(f"expected a folder that can be listed, but {problem.filename} cannot: {problem.strerror}") from None

    for folder, below, names in os.walk(top, onerror=refuse):
        below[:] = sorted(b for b in below if not b.startswith(".") and Path(folder, b) != exclude)
        for name in sorted(names):
            # A link to nowhere is kept, so that reading it names it, but no pipe, which would hang.
            if _is_image(name) or (name.endswith(".tar") and not name.startswith(".")):
                path = Path(folder, name)
                if path.is_file() or path.is_symlink():
                    yield folder, name


def _listed(path: Path) -> Iterator[tuple[str, str]]:
    resolved = lru_cache(1024)(os.path.realpath)
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            for line in lines:
                entry = line.rstrip("\r\n")
                if entry.strip() and not entry.startswith("#"):
                    folder, name = os.path.split(path.parent / entry)
                    yield str(resolved(folder)), name
    except OSError as problem:
        raise InputError(f"expected a text list of paths at {path}, but it cannot be read: {problem.strerror}") from None


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _prefix_from(root: Path) -> Callable[[str], str]:
    """Build a function from a folder below ``root`` to what stands before the names of its files in their ids."""

    @lru_cache(1024)
    def prefix(folder: str) -> str:
        inner = Path(folder).relative_to(root).as_posix()
        return "" if inner == "." else f"{inner}/"

    return prefix


_SCANNING = Lock()


def _members(tar: str) -> Mapping[str, tuple[int, int]]:
    """Where the images of a tar are: offset and size in bytes by name, in its order."""
    try:
        stat = os.stat(tar)  # noqa: PTH116
        with _SCANNING:  # else every thread would scan the same tar
            return _scanned(tar, stat.st_mtime_ns, stat.st_size)
    except (OSError, tarfile.TarError) as problem:
        raise InputError(f"expected an uncompressed tar at {tar}, but it cannot be read: {problem}") from None


@lru_cache(128)  # tars; an archive's images are read from many at random
def _scanned(tar: str, time: int, size: int) -> Mapping[str, tuple[int, int]]:
    with tarfile.open(tar, "r:") as members:
        return {m.name: (m.offset_data, m.size) for m in members if m.isreg() and _is_image(m.name.rpartition("/")[2])}
