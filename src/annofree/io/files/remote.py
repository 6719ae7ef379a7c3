"""Images in object storage, such as s3://bucket/photos or gs://bucket/photos, by fsspec: nothing else here knows it.

A place is written as paths are, ``s3:/bucket/photos/a.jpg``, so that what is said of paths holds for it too.  Who may read it
is said by the environment, as the storage's own tools have it, and never by an address.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from annofree.errors import ImageError, InputError, MissingError
from annofree.io.image_files import OtherFiles, classify_file, is_tar

__all__ = ["RemoteSource", "find_url", "read_url", "refuse_url"]

_PLACE = re.compile(r"([a-z][a-z0-9+.-]+):/+([^/].*)", re.IGNORECASE | re.DOTALL)
_NOT_STORAGE = ("file", "http", "https", "ftp")  # this machine, and pages rather than folders
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}


def find_url(place: str) -> str | None:
    """Return the address of a place in object storage, None for a path of this machine.

    >>> find_url("s3:/bucket/a.jpg"), find_url("S3://bucket/a.jpg"), find_url("/photos/a.jpg"), find_url("file:///photos")
    ('s3://bucket/a.jpg', 's3://bucket/a.jpg', None, None)
    """
    found = _PLACE.fullmatch(place)
    if found is None or found[1].lower() in _NOT_STORAGE:
        return None
    return f"{found[1].lower()}://{found[2]}"


def refuse_url(out: str | Path) -> None:
    """Raise InputError for a folder to write to that is in object storage.

    >>> refuse_url("results")
    """
    if find_url(str(out)):
        raise InputError(
            "expected --out on this machine, got one in object storage, where nothing can be written in part and moved; "
            "write to a folder here, and copy it there once it is complete"
        )


def read_url(url: str) -> bytes:
    """Return the bytes of an object; raises ImageError that names it where it cannot be read."""
    system, path = _open_storage(url)
    try:
        data: bytes = system.cat_file(path)
    except Exception as problem:  # each storage has its own, and their texts may hold what nobody should read
        raise ImageError(f"expected an image at {url}, but it cannot be read ({type(problem).__name__})") from None
    return data


@dataclass(frozen=True)
class RemoteSource:
    """The images of ``inputs`` in one storage: folders, which are searched at every depth, patterns and single images.

    ``others`` are what was passed over in the last listing though it may be an image: only names are looked at, and tars are
    not opened.  Raises InputError for nothing, for several storages, for what cannot be listed, and for an address with a
    password or a signature in it.
    """

    inputs: Sequence[str]
    others: OtherFiles = field(default_factory=OtherFiles, compare=False, repr=False)

    def __post_init__(self) -> None:
        kinds = {urlsplit(url).scheme for url in self.inputs}
        if len(kinds) != 1:
            raise InputError(f"expected images in one storage, got {' and '.join(sorted(kinds)) or 'none'}; name one at a time")
        for url in self.inputs:
            _refuse_secrets(url)

    @property
    def root(self) -> Path:
        """The deepest folder that holds everything; ids count from here."""
        folders = [posixpath.dirname(path) for path in self._paths]
        scheme = urlsplit(self.inputs[0]).scheme
        return Path(f"{scheme}:/", posixpath.commonpath(folders).lstrip("/"))

    def list_ids(self) -> Iterator[str]:
        """The id of each image, once, in the same order each time."""
        start = len(str(self.root).partition(":")[2].lstrip("/")) + 1
        return (path.lstrip("/")[start:] for path in self._paths)

    @cached_property
    def _paths(self) -> list[str]:
        self.others.clear()
        found = [path for url in self.inputs for path in _list_paths(url) if self._is_image(path)]
        if not found:
            raise InputError(f"expected images at {', '.join(self.inputs)}, found none; check the address")
        return list(dict.fromkeys(found))

    def _is_image(self, path: str) -> bool:
        name = posixpath.basename(path)
        why = "a tar in object storage; copy it here first" if is_tar(name) else classify_file(name, bytes)
        if why:
            self.others.add(why, path)
        return why == ""


def _refuse_secrets(url: str) -> None:
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query:
        raise InputError(
            f"expected an address without a password or signature at {parts.scheme}://{parts.hostname or ''}; "
            "let the environment say who may read there, as the tools of the storage have it"
        )


def _list_paths(url: str) -> list[str]:
    system, path = _open_storage(url)
    try:
        if re.search(r"[*?\[]", path) and not system.exists(path):
            return sorted(one for one in system.glob(path) if system.isfile(one))
        return [path] if system.isfile(path) else sorted(system.find(path))
    except Exception as problem:  # as in ``read_url``
        raise InputError(f"expected images at {url}, but it cannot be listed ({type(problem).__name__})") from None


def _open_storage(url: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path there; raises MissingError without a package for it."""
    scheme = urlsplit(url).scheme
    try:
        import fsspec
    except ImportError:
        raise MissingError(
            f'expected fsspec to read {scheme}://, but it is not installed; pip install "annofree[cloud]"'
        ) from None
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError:
        package = _PACKAGES.get(scheme, f"the package of fsspec for {scheme}")
        raise MissingError(f"expected {package} to read {scheme}://, but it is not installed; pip install {package}") from None
    except ValueError:
        raise InputError(f"expected a storage that fsspec knows, such as s3:// or gs://, got {scheme}://") from None
    return system, str(path)
