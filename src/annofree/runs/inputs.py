"""What a person names on the command line, as a source of pictures: folders, globs, lists, tars, files, file:// URLs."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from annofree.errors import InputError
from annofree.io.image_sources import Source
from annofree.io.images import SUFFIXES, find_images

__all__ = ["source_of"]

_TAKEN = (*SUFFIXES, ".tar")


def source_of(inputs: Sequence[str | Path], exclude: Path | None = None) -> Source:
    """Find out what is meant; ``exclude`` is the folder that results go to.

    A pattern (``photos/*.jpg``, ``**`` for any depth) stands for the pictures, tars and folders that it fits, in sorted order,
    and for text lists only where it ends in .txt.  Raises InputError for what is not there, for a folder or pattern without
    pictures, and for URLs of other machines.
    """
    places = [place for given in inputs for place in _meant(str(given), exclude)]
    for place in places:
        _check(place, exclude)
    return Source(tuple(places), exclude)


def _meant(given: str, exclude: Path | None) -> Iterator[Path]:
    place = _local(given)
    if glob.has_magic(str(place)) and not place.exists() and not place.is_symlink():
        yield from _matching(str(place), exclude)
    else:
        yield place


def _local(given: str) -> Path:
    url = urlsplit(given)
    if not given.lower().startswith("file:") and "://" not in given:
        return Path(given)
    if url.scheme.lower() != "file" or url.netloc not in ("", "localhost"):
        raise InputError(f"expected pictures on this machine, got {given}; download them first, and name the folder")
    return Path(url2pathname(url.path))


def _matching(pattern: str, exclude: Path | None) -> Iterator[Path]:
    left_out = exclude.resolve() if exclude else None
    endings = (".txt",) if pattern.lower().endswith(".txt") else _TAKEN
    found = False
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 -- Path.glob takes no absolute pattern
        place = Path(match)
        inside = left_out is not None and (place.resolve() == left_out or left_out in place.resolve().parents)
        if not inside and (match.lower().endswith(endings) or (place.is_dir() and "**" not in pattern)):
            found = True
            yield place
    if not found:
        raise InputError(f"expected pictures, tars or folders that fit {pattern}, found none; is the pattern right?")


def _check(place: Path, exclude: Path | None) -> None:
    """Refuse what is not there, and folders without pictures, as early as can be."""
    if not place.is_dir() and not place.is_file():
        find_images([place])  # says what is wrong with it
    if place.is_dir() and next(Source((place,), exclude).ids(), None) is None:
        find_images([place], exclude=exclude)
