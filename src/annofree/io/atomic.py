"""Writing a file whole or not at all."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from annofree.errors import InputError

__all__ = ["make_folder", "write_atomic", "write_json"]

_TOLD = re.compile(r"\(os error (\d+)\)")
_LONGEST_STEM = 150  # bytes of a name, which with what is put around it have to be 255 at most


def make_folder(folder: Path) -> None:
    """Make a folder for results, with its parents; raises InputError when there cannot be one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InputError(f"expected a folder to write to, but {folder} cannot be one: {problem.strerror}") from None


def write_atomic(path: Path, write: Callable[[Path], object], rights: int = 0o644) -> None:
    """Call ``write`` on a temporary file beside ``path`` and move it there once it is complete.

    It gets those of the ``rights`` that new files get of this process.  An OSError names the file.
    """
    stem = path.stem.encode(errors="surrogateescape")[:_LONGEST_STEM].decode("utf-8", "ignore")
    temporary = path.with_name(f".{stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        given = temporary.stat().st_mode  # what writes may put a file of its own there
        write(temporary)
        temporary.chmod(given & rights | 0o200)
        temporary.replace(path)
    except OSError as problem:
        problem.filename = str(path) if problem.filename in (None, str(temporary)) else problem.filename
        raise
    except Exception as problem:
        if (number := _find_disk_error(problem)) is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def _find_disk_error(problem: Exception) -> int | None:
    """The number of the error of the disk that a library's own error stands for, such as those of torch and safetensors."""
    if isinstance(problem.__context__, OSError):
        return problem.__context__.errno
    told = _TOLD.search(str(problem))
    return int(told.group(1)) if told else None


def write_json(path: Path, value: object, indent: int | None = None, *, ascii_only: bool = False) -> None:
    """Write a value as JSON, whole or not at all; in ASCII where it has names of files, which need not be valid Unicode."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only, allow_nan=False) + "\n"
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
