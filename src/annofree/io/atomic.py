"""Writing a file whole or not at all."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from annofree.errors import InputError

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["make_folder", "name_errors", "remove_temporaries", "write_atomic", "write_jpeg", "write_json"]

_IN_RUST = re.compile(r"\(os error (\d+)\)")  # as safetensors has it
_LONGEST_STEM = 150  # bytes of a name, which with what is put around it have to be 255 at most


def make_folder(folder: Path) -> None:
    """Make a folder for results, with its parents; raises InputError when there cannot be one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InputError(f"expected a folder to write to, but {folder} cannot be one: {problem.strerror}") from None


def write_atomic(path: Path, write: Callable[[Path], object], rights: int = 0o644) -> None:
    """Call ``write`` on a temporary file beside ``path`` and move it there once it is complete.

    It gets those of the ``rights`` that new files get of this process.  Where it cannot be written, whatever library says so,
    an OSError names the file.
    """
    stem = path.stem.encode(errors="surrogateescape")[:_LONGEST_STEM].decode("utf-8", "ignore")
    temporary = path.with_name(f".{stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        given = temporary.stat().st_mode  # what writes may put a file of its own there
        write(temporary)
        temporary.chmod(given & rights | 0o200)
        temporary.replace(path)
    except InputError:
        raise
    except Exception as problem:
        with name_errors(path, temporary):
            raise _find_os_error(problem) or problem  # noqa: B904 -- it is the same one
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path, stems: Iterable[str]) -> None:
    """Remove what a kill left of the files with these ``stems`` in a folder: temporary ones, not moved yet."""
    ours = re.compile(rf"\.({'|'.join(map(re.escape, stems))})-[0-9a-f]{{8}}(\.\w+)?")
    for path in folder.glob(".*"):
        if ours.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            path.unlink()


@contextmanager
def name_errors(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Let an OSError within that names no file, or the ``temporary`` one, name ``path``.

    >>> with name_errors(Path("out/log.jsonl")):
    ...     raise OSError(28, "No space left on device")
    Traceback (most recent call last):
    OSError: [Errno 28] No space left on device: 'out/log.jsonl'
    """
    try:
        yield
    except OSError as problem:
        problem.filename = str(path) if problem.filename in (None, str(temporary)) else problem.filename
        raise


def _find_os_error(problem: BaseException) -> OSError | None:
    """The OSError that torch or safetensors turned into one of its own, None where there is none."""
    if number := _IN_RUST.search(str(problem)):
        return OSError(int(number[1]), os.strerror(int(number[1])))
    behind = problem.__context__ if isinstance(problem, RuntimeError) else None
    return behind if isinstance(behind, OSError) else None


def write_jpeg(path: Path, image: PIL.Image.Image, quality: int, subsampling: int = -1) -> None:
    """Write a JPEG, whole or not at all: encoded in memory, for Pillow's own writing passes over a full disk."""
    file = BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling=subsampling)
    write_atomic(path, lambda temporary: temporary.write_bytes(file.getvalue()))


def write_json(path: Path, value: object, indent: int | None = None, *, ascii_only: bool = False) -> None:
    """Write a value as JSON, whole or not at all; in ASCII where it has names of files, which need not be valid Unicode."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only, allow_nan=False) + "\n"
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
