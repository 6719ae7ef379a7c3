"""Whether a file is still the one that was written, or looked at."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

from annofree.io.regular import require_regular

__all__ = ["is_unchanged", "measure_file"]

_BLOCK = 1 << 20


def measure_file(path: Path) -> list[int]:
    """Return bytes and checksum (CRC-32) of a file."""
    size = crc = 0
    with require_regular(path).open("rb") as file:
        while block := file.read(_BLOCK):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return [size, crc]


def is_unchanged(path: Path, known: Sequence[int], since: int = 0) -> bool:
    """Tell whether a file has the bytes and checksum that are ``known``; it is read if touched ``since``, in ns, or later."""
    try:
        held = path.stat()
        if held.st_size != known[0]:
            return False
        return max(held.st_mtime_ns, held.st_ctime_ns) < since or measure_file(path) == list(known)
    except OSError:
        return False
