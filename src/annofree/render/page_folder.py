"""The folder of a page: written beside its place and put there whole, over an earlier page and over nothing else."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from annofree.errors import InputError
from annofree.io.atomic import make_folder

__all__ = ["page_folder"]


@contextmanager
def page_folder(out: Path, generator: str, contents: Collection[str]) -> Iterator[Path]:
    """Give an empty folder to write index.html and what belongs to it to, and put it at ``out`` when the block ends.

    An earlier page of the same ``generator`` is replaced.  Raises InputError where ``out`` holds another, or anything but
    ``contents`` beside it, and where it cannot be written to; ``out`` is then as it was.
    """
    try:
        _check(out, generator, {"index.html", *contents})
        make_folder(out.parent)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
            folder = Path(temporary) / out.name
            folder.mkdir()
            yield folder
            if out.exists():
                shutil.rmtree(out)
            folder.replace(out)
    except OSError as problem:
        raise InputError(f"expected a folder that can be written to, but {out} cannot: {problem.strerror}") from None


def _check(out: Path, generator: str, contents: Collection[str]) -> None:
    """Refuse to put a page in the place of anything but an earlier one."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    index = out / "index.html"
    ours = index.is_file() and f'content="{generator}"' in index.read_text(encoding="utf-8", errors="replace")[:2000]
    if not ours or {path.name for path in out.iterdir()} - set(contents):
        raise InputError(f"expected a new or empty folder, or an earlier page, at {out}; choose another --out")
