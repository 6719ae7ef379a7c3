"""Images by the million: folders, lists of paths and WebDataset tars, one id and one place an image.

The id of an image is its path below the source's ``root``; inside a tar it is ``shard.tar::member``.  So its place is
``root/id``, wherever the root is.
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import BinaryIO, NamedTuple, Protocol

from annofree.errors import ImageError, InputError
from annofree.io.decode_budget import DecodeBudget, find_free_memory
from annofree.io.files.remote import find_url, read_url
from annofree.io.image_files import HEAD, OtherFiles, classify_file, is_tar, stream_images
from annofree.io.images import decode_bytes, decode_image
from annofree.structures import Image

__all__ = ["ImageSource", "Reader", "Source", "find_file", "read_images", "read_member", "read_place"]

Reader = Callable[[str, "str | None"], Image]
"""Returns the image of a place under an id, or raises ImageError; called in threads."""

_INSIDE = re.compile(r"(?<=\.tar)::", re.IGNORECASE)
_SHARE, _AHEAD = 4, 1 << 30  # pixels read ahead may take a fourth of the memory that is free, and no more than so many bytes


def read_place(place: str, id: str | None = None) -> Image:  # noqa: A002 -- the word the noun uses
    """Read an image from its place, with Pillow's warnings let through; made for threads.

    That is a path, ``shard.tar::member``, or what ``find_url`` knows as an object of a storage.
    Raises ImageError, one line naming the place, when there is no whole image.
    """
    url = find_url(place)
    if url is not None:
        return decode_bytes(read_url(url), url, id)
    try:
        data = read_member(place)
        return decode_image(Path(place), id) if data is None else decode_bytes(data, place, id)
    except ImageError:
        raise
    except KeyError:
        raise ImageError(f"expected an image at {place}, but the tar has no such member") from None
    except (OSError, InputError) as problem:
        raise ImageError(f"expected an image at {place}, but the tar cannot be read: {problem}") from None


def read_member(place: str) -> bytes | None:
    """Return the bytes of a member of a tar, None for a place outside of tars.

    Raises KeyError where the tar has no such image, InputError and OSError where it cannot be read.
    """
    path, *inside = _INSIDE.split(place, maxsplit=1)
    if not inside:
        return None
    offset, size = _members(path).images[inside[0]]
    with Path(path).open("rb") as file:
        file.seek(offset)
        return file.read(size)


def find_file(place: str) -> Path:
    """Return the file of a place: a tar, or the image itself."""
    return Path(_INSIDE.split(place, maxsplit=1)[0])


class ImageSource(Protocol):
    """Images that work is to be done on, wherever they are."""

    @property
    def inputs(self) -> Sequence[str | Path]:
        """What was given."""
        ...

    @property
    def others(self) -> OtherFiles:
        """What was passed over."""
        ...

    @property
    def root(self) -> Path:
        """The folder that ids count from."""
        ...

    def list_ids(self) -> Iterator[str]:
        """The id of each image, once, in the same order each time."""
        ...


@dataclass(frozen=True)
class Source:
    """The images of ``inputs``: folders, tars, text lists (``.txt``, a path a line) and single images.

    Folders are searched at every depth for images and tars, in sorted order; hidden files are passed over, and so is
    ``exclude``, the folder that results go to.  Paths in a list count from the list's own folder; its empty lines and those
    that begin with # are passed over.  Tars are uncompressed.
    ``others`` are what was passed over in the last listing though it may be an image.

    Raises InputError for no input, for one that is missing or of another kind, and for a list or tar that cannot be read.
    """

    inputs: Sequence[Path]
    exclude: Path | None = None
    others: OtherFiles = field(default_factory=OtherFiles, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.inputs:
            raise InputError("expected images: a folder, a text list of paths or tars, got none; for example photos/")
        for given in self.inputs:
            if not given.is_file() and not given.is_dir():
                why = "neither" if given.exists() else "not there; check the spelling"
                raise InputError(f"expected a folder, a list, a tar or an image, but {given} is {why}")

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
        self.others.clear()
        for folder, name in self._files():
            path = prefix(folder) + name
            for id in self._list_members(folder, name, path) if is_tar(name) else (path,):  # noqa: A001
                if id not in seen:
                    seen.add(id)
                    yield id

    def _list_members(self, folder: str, name: str, path: str) -> Iterator[str]:
        members = _members(os.path.join(folder, name))  # noqa: PTH118 -- by the million
        for reason, member in members.others:
            self.others.add(reason, f"{path}::{member}")
        return (f"{path}::{member}" for member in members.images)

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
                yield from stream_images(given.resolve(), self.exclude.resolve() if self.exclude else None, self.others)
            elif _is_list(given):
                yield from _listed(given)
            else:
                yield str(given.parent.resolve()), given.name


def read_images(
    entries: Iterable[tuple[str, str]], threads: int = 4, ahead: int = 64, reader: Reader = read_place
) -> Iterator[tuple[str, str, Image | ImageError]]:
    """Read images, given by id and place, in threads: (id, place, image or why there is none), in order.

    At most ``ahead`` images are held, and beside the one that is waited for a GiB or a quarter of the memory that is free.
    Enter ``silence_pillow`` around this.
    """
    budget, coming = DecodeBudget(min(_AHEAD, find_free_memory() // _SHARE)), deque[_Coming]()
    with ThreadPoolExecutor(threads, thread_name_prefix="annofree-read") as readers:
        try:
            for number, (id, place) in enumerate(entries):  # noqa: A001
                coming.append((id, place, readers.submit(_read, budget, number, reader, place, id)))
                if len(coming) >= ahead:
                    yield _settled(budget, reader, *coming.popleft())
                    budget.advance()
            while coming:
                yield _settled(budget, reader, *coming.popleft())
                budget.advance()
        finally:
            for *_, left in coming:
                left.cancel()
            budget.drop_limit()


_Coming = tuple[str, str, "Future[Image | ImageError]"]
"""An image to come: its id, its place, and what becomes of it."""


def _read(budget: DecodeBudget, number: int, reader: Reader, place: str, id: str) -> Image | ImageError:  # noqa: A002
    size = 0
    try:
        with budget.count_claims(number):
            image = reader(place, id)
        size = image.pixels.nbytes
        return image
    except ImageError as problem:
        return problem
    except MemoryError as problem:
        return _explain_memory(place, problem)
    finally:
        budget.keep(number, size)


def _settled(
    budget: DecodeBudget,
    reader: Reader,
    id: str,  # noqa: A002
    place: str,
    future: Future[Image | ImageError],
) -> tuple[str, str, Image | ImageError]:
    """Wait for an image; one that memory ran out for is read once more, by itself, as its neighbours may have taken it."""
    image = future.result()
    if isinstance(image, ImageError) and isinstance(image.__cause__, MemoryError):
        with budget.wait_alone():
            try:
                image = reader(place, id)
            except ImageError as problem:
                image = problem
            except MemoryError as problem:
                image = _explain_memory(place, problem)
    return id, place, image


def _explain_memory(place: str, problem: MemoryError) -> ImageError:
    error = ImageError(f"expected an image that fits into memory, but {place} does not; make it smaller first")
    error.__cause__ = problem
    return error


def _is_list(path: Path) -> bool:
    return path.suffix.lower() == ".txt"


def _listed(path: Path) -> Iterator[tuple[str, str]]:
    resolved = lru_cache(1024)(os.path.realpath)
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            for number, line in enumerate(lines, 1):
                entry = line.rstrip("\r\n")
                if "\0" in entry:
                    raise InputError(f"expected a path in line {number} of {path}, got {entry!r:.60}; remove the line")
                if entry.strip() and not entry.startswith("#"):
                    folder, name = os.path.split(path.parent / entry)
                    yield str(resolved(folder)), name
    except OSError as problem:
        raise InputError(f"expected a text list of paths at {path}, but it cannot be read: {problem.strerror}") from None


def _prefix_from(root: Path) -> Callable[[str], str]:
    """Build a function from a folder below ``root`` to what stands before the names of its files in their ids."""

    @lru_cache(1024)
    def prefix(folder: str) -> str:
        inner = Path(folder).relative_to(root).as_posix()
        return "" if inner == "." else f"{inner}/"

    return prefix


_SCANNING = Lock()


class _Members(NamedTuple):
    """Of the images of a tar offset and size in bytes by name, in its order; of what else may be one, reason and name."""

    images: Mapping[str, tuple[int, int]]
    others: Sequence[tuple[str, str]]


def _members(tar: str) -> _Members:
    try:
        about = os.stat(tar)  # noqa: PTH116
        if not stat.S_ISREG(about.st_mode):
            raise InputError(f"expected an uncompressed tar at {tar}, but it is a pipe, a device or a socket; leave it out")
        with _SCANNING:  # else every thread would scan the same tar
            return _scanned(tar, about.st_mtime_ns, about.st_size)
    except (OSError, tarfile.TarError) as problem:
        raise InputError(f"expected an uncompressed tar at {tar}, but it cannot be read: {problem}") from None


@lru_cache(128)  # tars; an archive's images are read from many at random
def _scanned(tar: str, time: int, size: int) -> _Members:
    images: dict[str, tuple[int, int]] = {}
    others: list[tuple[str, str]] = []
    with tarfile.open(tar, "r:") as members, Path(tar).open("rb") as file:
        for member in members:
            judgment = _judge_member(member, file)
            if judgment == "" and member.name in images:
                others.append(("a later member of the tar has the same name", member.name))
            if judgment == "":
                images[member.name] = member.offset_data, member.size
            elif judgment:
                others.append((judgment, member.name))
        if rest := _judge_rest(file, members.offset):
            others.append((rest, f"byte {members.offset:,} and what follows"))
    return _Members(images, others)


def _judge_rest(file: BinaryIO, end: int) -> str | None:
    """Tell what is wrong with the rest of a tar from where its members ended: it should be zeros, of which there are some."""
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if not block:
        return "the tar has no end mark: members may be cut off"
    if block.strip(b"\0"):
        return "no member of a tar: it is damaged there"
    while block := file.read(1 << 20):
        if block.strip(b"\0"):
            return "what follows the end mark of a tar, such as a second one"
    return None


def _judge_member(member: tarfile.TarInfo, file: BinaryIO) -> str | None:
    """Tell what a member of a tar is, as ``classify_file`` does."""
    name = member.name.rpartition("/")[2]
    if member.isdir() or name.startswith("."):
        return None

    def read_head() -> bytes:
        file.seek(member.offset_data)
        return file.read(min(HEAD, member.size))

    judgment = classify_file(name, read_head if member.isreg() else bytes)
    return "a link or a device in a tar" if judgment == "" and not member.isreg() else judgment
