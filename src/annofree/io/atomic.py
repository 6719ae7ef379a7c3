"""Writing a file whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from annofree.errors import InputError

__all__ = ["make_folder", "write_atomic", "write_json"]


def make_folder(folder: Path) -> None:
    """Make a folder for results, with its parents; raises InputError when there cannot be one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InputError(f"expected a folder to write to, but {folder} cannot be one: {problem.strerror}") from None


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` on a temporary file beside ``path`` and move it there once it is complete."""
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object, indent: int | None = None, *, ascii_only: bool = False) -> None:
    """Write a value as JSON, whole or not at all; in ASCII where it has names of files, which need not be valid Unicode."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only, allow_nan=False) + "\n"
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
