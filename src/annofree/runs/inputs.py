"""What is given as images: folders, globs, lists, tars, files, object storage, file:// URLs, and images in memory."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

from annofree.errors import InputError
from annofree.io.files.remote import RemoteSource, find_url
from annofree.io.image_files import classify_file, is_tar, read_head
from annofree.io.image_inputs import ImageInput, is_place, to_image
from annofree.io.image_sources import ImageSource, Source, read_place
from annofree.io.images import find_images

if TYPE_CHECKING:
    from annofree.structures import Image

__all__ = ["Inputs", "find_source", "open_inputs"]


@dataclass(frozen=True)
class Inputs:
    """Images that work is to be done on."""

    # of each image: its path below ``root``, or the name of an image in memory
    ids: Sequence[str]
    # the folder that ids count from
    root: Path
    # images in memory, by their place
    opened: Mapping[str, Image] = field(default_factory=dict)
    # what was passed over though it may be an image, a line a reason
    remarks: Sequence[str] = ()

    def read(self, place: str, id: str | None = None) -> Image:  # noqa: A002 -- the word the noun uses
        """Return the image of a place under an id; raises ImageError where there is no whole image."""
        opened = self.opened.get(place)
        return read_place(place, id) if opened is None else opened

    def resume_key(self) -> dict[str, str]:
        """What tells images in memory from others of the same names."""
        digest = sha256()
        for image in self.opened.values():
            digest.update(f"{image.pixels.shape}".encode() + np.ascontiguousarray(image.pixels).data)
        return {"pixels": digest.hexdigest()} if self.opened else {}

    def place(self, id: str) -> str:  # noqa: A002
        """Where the image of an id is."""
        return f"{self.root}/".replace("//", "/") + id


_MEMORY = Path("memory")
"""The root of images that are in memory alone."""


def open_inputs(images: ImageInput | Iterable[ImageInput], exclude: Path | None = None, limit: int | None = None) -> Inputs:
    """Find out which images are meant, the first ``limit`` of them; ``exclude`` is the folder that results go to.

    Places are read as ``find_source`` says, and images in memory are taken as ``to_image`` does.  Raises InputError as these
    do.

    >>> open_inputs("examples/scenes/oranges.jpg").ids
    ['oranges.jpg']
    """
    alone = is_place(images) or hasattr(images, "shape") or isinstance(images, bytes | Mapping)
    alone = alone or not isinstance(images, Iterable)
    given: list[ImageInput] = [images] if alone else list(images)  # type: ignore[list-item, arg-type]
    places = [one for one in given if is_place(one)]
    held = [one for one in given if not is_place(one)]
    source = find_source(places, exclude) if places or not held else None
    root = _MEMORY if source is None else source.root
    ids = [] if source is None else list(islice(source.list_ids(), limit))
    named = _named(
        [to_image(one, f"image-{k + 1}") for k, one in enumerate(held[: None if limit is None else limit - len(ids)])]
    )
    inputs = Inputs([*ids, *named], root)
    opened = {inputs.place(name): image for name, image in named.items()}
    return Inputs(inputs.ids, root, opened, [] if source is None else source.others.format_lines())


def _named(images: Sequence[Image]) -> dict[str, Image]:
    """Images by ids of their own: a name that comes again gets a number."""
    found: dict[str, Image] = {}
    for image in images:
        name, k = image.id.lstrip("/"), 1
        while name in found:
            k += 1
            name = f"{image.id.lstrip('/')}-{k}"
        found[name] = image
    return found


def find_source(inputs: Sequence[str | Path], exclude: Path | None = None) -> ImageSource:
    """Resolve inputs to a source; ``exclude`` is the output folder.

    A pattern (``photos/*.jpg``, ``**`` for any depth) stands for the images, tars and folders that it fits, in sorted order,
    and for text lists only where it ends in .txt.  Raises InputError for missing inputs, for a folder or pattern without
    images, and for URLs of other machines; those of object storage are read by fsspec.
    """
    urls = [find_url(str(given)) for given in inputs]
    if any(urls):
        return _find_remote(urls)
    places = [place for given in inputs for place in _meant(str(given), exclude)]
    for place in places:
        _check(place, exclude)
    return Source(tuple(places), exclude)


def _find_remote(urls: Sequence[str | None]) -> RemoteSource:
    stored = [url for url in urls if url is not None]
    if len(stored) < len(urls):
        raise InputError(f"expected images either on this machine or in object storage, got both; {stored[0]} is there")
    return RemoteSource(stored)


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
        raise InputError(f"expected images on this machine, got {given}; download them first, and name the folder")
    return Path(url2pathname(url.path))


def _matching(pattern: str, exclude: Path | None) -> Iterator[Path]:
    left_out = exclude.resolve() if exclude else None
    lists = pattern.lower().endswith(".txt")
    found = False
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 -- Path.glob takes no absolute pattern
        place = Path(match)
        inside = left_out is not None and (place.resolve() == left_out or left_out in place.resolve().parents)
        if not inside and (_is_meant(place, lists) or (place.is_dir() and "**" not in pattern)):
            found = True
            yield place
    if not found:
        raise InputError(f"expected images, tars or folders that fit {pattern}, found none; is the pattern right?")


def _is_meant(place: Path, lists: bool) -> bool:
    """Tell whether what a pattern fits is an image, even one that cannot be read, a tar, or with ``lists`` a text list."""
    if lists:
        return place.name.lower().endswith(".txt")
    if place.is_dir():
        return False
    judgment = classify_file(place.name, partial(read_head, str(place)))
    return is_tar(place.name) or judgment == "" or (judgment is not None and place.is_file())


def _check(place: Path, exclude: Path | None) -> None:
    """Refuse what is not there, and folders without images, as early as can be."""
    if not place.is_dir() and not place.is_file():
        find_images([place])  # says what is wrong with it
    if place.is_dir() and next(Source((place,), exclude).list_ids(), None) is None:
        find_images([place], exclude=exclude)
