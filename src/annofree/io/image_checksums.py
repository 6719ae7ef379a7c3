"""Whether an image is still the one that was looked at, be it a file or a member of a tar."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from annofree.errors import InputError
from annofree.io.files.checksums import is_unchanged, measure_file
from annofree.io.image_sources import find_file, read_member

__all__ = ["is_image_unchanged", "measure_image"]


def measure_image(place: str) -> list[int] | None:
    """Return bytes and checksum (CRC-32) of an image, a file or ``shard.tar::member``; None where it cannot be read."""
    try:
        data = read_member(place)
        return measure_file(find_file(place)) if data is None else [len(data), zlib.crc32(data)]
    except (OSError, ValueError, KeyError, InputError):
        return None


def is_image_unchanged(place: str, known: Sequence[int], since: int = 0) -> bool:
    """Tell whether an image has the bytes and checksum that are ``known``; one that is gone with its file is passed over.

    It is read if its file was touched ``since``, in ns, or later.
    """
    path = find_file(place)
    try:
        if not path.exists():
            return True
        if str(path) == place:
            return is_unchanged(path, known, since)
        held = path.stat()
        return max(held.st_mtime_ns, held.st_ctime_ns) < since or measure_image(place) == list(known)
    except OSError:
        return False
