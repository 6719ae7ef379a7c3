"""Files that are on the disk, and not only on their way there, when a call returns."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from annofree.errors import InputError

__all__ = ["explain_write_errors", "settle", "settle_folder", "write_lines", "write_text"]


def settle(paths: Iterable[Path]) -> None:
    """Flush files and their folders to disk."""
    folders = set()
    for path in paths:
        _sync(path, os.O_RDWR)
        folders.add(path.parent)
    for folder in folders:
        settle_folder(folder)


def settle_folder(folder: Path) -> None:
    """Flush what a folder holds."""
    if os.name == "posix":  # elsewhere folders cannot be opened
        _sync(folder, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_lines(path: Path, values: Iterable[Any]) -> None:
    """Write one JSON value per line, in ASCII: file names may be invalid Unicode."""
    with path.open("w", encoding="ascii", newline="\n") as lines:
        for value in values:
            try:
                lines.write(json.dumps(value, allow_nan=False) + "\n")
            except ValueError:
                raise InputError(f"expected finite numbers, which JSON can hold, got {value!r:.200}") from None
        lines.flush()
        os.fsync(lines.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a text in ASCII."""
    with path.open("w", encoding="ascii", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def explain_write_errors(out: Path) -> Iterator[None]:
    """Turn write errors into a readable message."""
    try:
        yield
    except OSError as problem:
        full = problem.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full" if full else problem.strerror or str(problem)
        where = f" ({problem.filename})" if problem.filename and not full else ""
        again = "once there is room, the same command goes on" if full else "the same command goes on"
        raise InputError(f"results cannot be written to {out}: {why}{where}; what was done is kept, and {again}") from problem
