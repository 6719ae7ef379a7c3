"""Atomic writing of a page's folder: replaces an earlier page and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from annofree.errors import InputError
from annofree.io.atomic import make_folder
from annofree.io.files.scratch import open_scratch

__all__ = ["check_page_folder", "open_page_folder"]


@contextmanager
def open_page_folder(out: Path, generator: str, contents: Collection[str]) -> Iterator[Path]:
    """Yield an empty folder for index.html and its files, and move it to ``out`` when the block ends.

    An earlier page of the same ``generator`` is replaced.  Raises InputError if ``out`` holds another page, or anything but
    ``contents`` beside it, and if it cannot be written; ``out`` is then unchanged.
    """
    try:
        check_page_folder(out, generator, contents)
        make_folder(out.parent)
        with open_scratch(out, "page") as folder:
            yield folder
            if out.exists():
                shutil.rmtree(out)
            folder.replace(out)
    except OSError as problem:
        raise InputError(f"expected a folder that can be written to, but {out} cannot: {problem.strerror}") from None


def check_page_folder(out: Path, generator: str, contents: Collection[str]) -> None:
    """Refuse to replace anything but an earlier page, with an InputError; for who would find out only after long work."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    index = out / "index.html"
    ours = index.is_file() and f'content="{generator}"' in index.read_text(encoding="utf-8", errors="replace")[:2000]
    if not ours or {path.name for path in out.iterdir()} - {"index.html", *contents}:
        raise InputError(f"expected a new or empty folder, or an earlier page, at {out}; choose another --out")
