"""What is kept of images between questions: in memory up to so many bytes, and on the disk."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from annofree.errors import InputError
from annofree.io.atomic import make_folder
from annofree.runs.encodings import EncodingFile, pack, write_encodings
from annofree.runs.tasks import Tasks

__all__ = ["KeptEncodings", "Recent", "find_part", "measure_bytes"]


class Recent:
    """What was used last, up to ``most`` bytes; one that is larger alone is not kept.

    >>> recent = Recent(20)
    >>> recent.keep("a", b"0123456789", 10); recent.keep("b", b"01234567890", 11)
    >>> recent.get("a"), recent.bytes
    (None, 11)
    """

    def __init__(self, most: int) -> None:
        self.most, self.bytes = most, 0
        self._held: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable) -> Any:
        """What is kept under a key, None where nothing is."""
        if key not in self._held:
            return None
        self._held.move_to_end(key)
        return self._held[key][0]

    def keep(self, key: Hashable, value: Any, size: int) -> None:
        """Keep a value of ``size`` bytes, and let go of what was not used for longest."""
        if key in self._held:
            self.bytes -= self._held.pop(key)[1]
        if size > self.most:
            return
        self._held[key] = value, size
        self.bytes += size
        while self.bytes > self.most:
            self.bytes -= self._held.popitem(last=False)[1][1]


class KeptEncodings:
    """The encodings of images in a folder, a file each, up to ``most`` bytes; what was not read for longest goes first."""

    def __init__(self, folder: Path, most: int = 4 << 30) -> None:
        self.folder, self.most = folder, most

    def read(self, key: str, tasks: Tasks, device: str) -> Any:
        """The encoding under a key, None where there is none that these tasks can use."""
        path = self._place(key, tasks)
        try:
            found = EncodingFile(path, tasks.encoding_kinds, device).read(key)
            path.touch()
        except (InputError, OSError):  # not there, or damaged: it is made again
            return None
        return found

    def write(self, key: str, tasks: Tasks, encoding: Any) -> None:
        """Keep an encoding; one that cannot be kept, or a full disk, is no reason to answer nothing."""
        with suppress(InputError, OSError):
            make_folder(self.folder)
            write_encodings(self._place(key, tasks), {key: pack(encoding)})
            self._shrink()

    def _place(self, key: str, tasks: Tasks) -> Path:
        text = "\n".join([*tasks.encoding_key, key])
        return self.folder / f"{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:40]}.safetensors"

    def _shrink(self) -> None:
        files = sorted(((path.stat(), path) for path in self.folder.glob("[0-9a-f]*.safetensors")), key=lambda f: f[0].st_mtime)
        over = sum(about.st_size for about, _ in files) - self.most
        for about, path in files:
            if over <= 0:
                return
            path.unlink(missing_ok=True)
            over -= about.st_size


def measure_bytes(value: Any) -> int:
    """About how many bytes of memory an encoding takes.

    >>> measure_bytes((np.zeros(4, np.float32), "ab"))
    18
    """
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, tuple | list):
        return sum(map(measure_bytes, value))
    if is_dataclass(value) and not isinstance(value, type):
        return sum(measure_bytes(getattr(value, f.name)) for f in fields(value))
    return 8


def find_part(value: Any, kind: type) -> Any:
    """The first part of an encoding that is of a kind, at any depth; None where there is none."""
    if isinstance(value, kind):
        return value
    parts: list[Any] = list(value) if isinstance(value, tuple) else []
    if is_dataclass(value) and not isinstance(value, type):
        parts = [getattr(value, f.name) for f in fields(value)]
    return next((found for part in parts if (found := find_part(part, kind)) is not None), None)
