"""Whether a file is still the one that was written, or looked at, and whether what it holds is."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from annofree.io.regular import require_regular

__all__ = ["add_checksum", "is_unchanged", "measure_file", "take_checksum"]

_BLOCK = 1 << 20
_KEY = "checksum"


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


def add_checksum(held: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a JSON object holds and, as its last value, the checksum (CRC-32) of all that.

    >>> add_checksum({"rows": 3})
    {'rows': 3, 'checksum': 1221473736}
    """
    return {**held, _KEY: _sum_values(held)}


def take_checksum(held: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an object holds beside its checksum, which earlier versions did not write; raises ValueError for another one.

    >>> take_checksum({"rows": 4, "checksum": 1221473736})
    Traceback (most recent call last):
    ValueError: it does not hold what was written
    """
    rest = {key: value for key, value in held.items() if key != _KEY}
    if held.get(_KEY, _sum_values(rest)) != _sum_values(rest):
        raise ValueError("it does not hold what was written")
    return rest


def _sum_values(held: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(held).encode("ascii"))
