"""What the results of an image are called: named after it, the same in every run over the same images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import PurePosixPath

from annofree.io.text import encode_name

__all__ = ["ResultName", "ResultNames"]

_LONGEST_NAME = 150  # bytes; file systems take 255, and room is needed for endings
_NOT_PORTABLE = str.maketrans(":\\", "__")
_ENDINGS = (".jpg", ".png")  # of results: a folder may be called as one


@dataclass(frozen=True)
class ResultName:
    """``file_name`` of the image, in valid Unicode; ``stem`` of its results; ``portable``, a stem that any system takes."""

    file_name: str
    stem: str
    portable: str


class ResultNames:
    """The names of the results of some images, given all their ids in order; only odd ones are kept in memory.

    a.png makes a; where that is taken, a.webp makes a.webp, then a-2, a-3.  No name leaves its folder, starts with a dot, or
    differs from another in capitals alone.

    >>> names = ResultNames(["x/a.png", "x/a.webp", "../b.png"])
    >>> names.find_names("x/a.png").stem, names.find_names("x/a.webp").stem, names.find_names("../b.png").stem
    ('x/a', 'x/a.webp', 'b')
    """

    def __init__(self, ids: Iterable[str]) -> None:
        given = list(ids)
        self._odd: dict[str, ResultName] = {}
        taken = {f for id_ in given for f in _folders_like_results(id_)}
        for id_ in given:
            plain, name = _plain(id_), PurePosixPath(_readable(id_))
            stem = _free(name, taken)
            safe = stem.translate(_NOT_PORTABLE)
            portable = stem if safe == stem else _free(PurePosixPath(f"{safe}.png"), taken)
            if (stem, portable) != (plain.stem, plain.portable):
                self._odd[id_] = ResultName(plain.file_name, stem, portable)

    def find_names(self, id_: str) -> ResultName:
        """The names of one of the images."""
        return self._odd.get(id_) or _plain(id_)


def _plain(id_: str) -> ResultName:
    """The names of an image that stands alone."""
    name = _readable(id_)
    stem = next(_candidates(PurePosixPath(name)))
    return ResultName(name, stem, stem)


def _readable(id_: str) -> str:
    """A name that is not valid Unicode cannot stand in a JSON file."""
    return encode_name(id_)


def _candidates(name: PurePosixPath) -> Iterator[str]:
    if name.is_absolute() or ".." in name.parts:
        name = PurePosixPath(name.name)
    # A result that begins with a dot would be hidden, and taken for one that was never finished.
    stem = name.stem.encode()[:_LONGEST_NAME].decode("utf-8", "ignore").lstrip(".") or "_"
    yield str(name.parent / stem)
    yield str(name.parent / f"{stem}{name.suffix}")
    for number in count(2):
        yield str(name.parent / f"{stem}-{number}")


def _free(name: PurePosixPath, taken: set[str]) -> str:
    for place in _candidates(name):
        key = place.casefold()  # some file systems take a.jpg for A.jpg
        if key not in taken:
            taken.add(key)
            return place
    raise AssertionError("there is always another number")


def _folders_like_results(id_: str) -> Iterator[str]:
    """A folder called a.jpg leaves no room for the result a.jpg, so the stem a is taken."""
    if id_.casefold().count(".") > 1:
        for folder in PurePosixPath(_readable(id_)).parents:
            key = str(folder).casefold()
            if key.endswith(_ENDINGS):
                yield key.rpartition(".")[0]
